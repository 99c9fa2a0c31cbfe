"""Translations: the cache, budgets and kills with an engine of the test's own; DeepL's client against its API on this
machine; CTranslate2 against transformers."""

import json
import shutil
import signal
import sqlite3
import subprocess
import sys
import time

import pytest
from clipita_train.data.pairs.engines import DeepL, EngineSettings, open_engine
from clipita_train.data.pairs.translate import EngineStoppedError, Failure, Translated, translate
from support.hub_stand_in import COMMIT, Hub
from support.reference import deepl
from support.web_stand_in import Web, answer

pytestmark = pytest.mark.slow


class Shout:
    """Translates into capitals; what has a digit fails, and after `patience` calls it stops."""

    name, batch, longest = "shout", 3, 40

    def __init__(self, *identity, patience=99):
        self.identity, self.patience, self.asked = identity, patience, []

    def translate(self, texts):
        if self.patience == 0:
            raise EngineStoppedError("quota", "no more until tomorrow")
        self.patience -= 1
        self.asked.append(list(texts))
        return [Failure("a digit") if any(map(str.isdigit, text)) else text.upper() for text in texts]

    @property
    def texts(self):
        return [text for batch in self.asked for text in batch]


def ok(*texts):
    return [Translated(text, "ok") for text in texts]


def test_each_text_is_translated_once_and_kept(tmp_path):
    engine = Shout()
    cache = tmp_path / "made" / "cache.sqlite"
    assert translate(["a", " b ", "a", "", "è"], engine, cache) == ok("A", "B", "A", "", "È")
    assert engine.texts == ["a", "b", "è"]
    again = Shout()
    assert translate(["b", "c"], again, cache) == ok("B", "C")
    assert again.texts == ["c"]


def test_another_engine_version_or_glossary_is_another_translation(tmp_path):
    cache = tmp_path / "cache.sqlite"
    for identity in [("1", "en", "it"), ("2", "en", "it"), ("1", "en", "de"), ("1", "en", "it", "terms")]:
        engine = Shout(*identity)
        assert translate(["a"], engine, cache) == ok("A")
        assert engine.texts == ["a"]


def test_failures_are_named_by_text_and_not_kept(tmp_path):
    engine = Shout()
    results = translate(["a", "b 2", "c"], engine, tmp_path / "cache")
    assert results == [Translated("A", "ok"), Translated(None, "failed: a digit"), Translated("C", "ok")]
    again = Shout()
    translate(["a", "b 2", "c"], again, tmp_path / "cache")
    assert again.texts == ["b 2"]


def test_batches_keep_to_the_engines_limits(tmp_path):
    engine = Shout()
    texts = ["a", "b", "c", "d", "e" * 40, "f", "g", "h" * 50]
    assert [result.text for result in translate(texts, engine, tmp_path / "cache")] == [t.upper() for t in texts]
    assert engine.asked == [["a", "b", "c"], ["d"], ["e" * 40], ["f", "g"], ["h" * 50]]


def test_a_budget_stops_the_work_and_a_larger_one_goes_on(tmp_path):
    texts = ["aaaa", "bbbb", "cc", "dddd", "e"]
    first = Shout()
    results = translate(texts, first, tmp_path / "cache", budget=11)
    assert results == [*ok("AAAA", "BBBB", "CC"), Translated(None, "budget"), Translated(None, "budget")]
    assert translate(texts, Shout(patience=0), tmp_path / "cache", budget=11) == results  # nothing more is spent
    more = Shout()
    assert translate(texts, more, tmp_path / "cache", budget=15) == ok("AAAA", "BBBB", "CC", "DDDD", "E")
    assert more.texts == ["dddd", "e"]
    other = Shout()
    other.name = "whisper"
    assert translate(["aaaa"], other, tmp_path / "cache", budget=4) == ok("AAAA")  # a budget is an engine's own


def test_an_engine_that_stops_leaves_what_it_did(tmp_path):
    texts = [f"{letter}" for letter in "abcdefgh"]
    results = translate(texts, Shout(patience=2), tmp_path / "cache")
    assert results[:6] == ok(*"ABCDEF")
    assert results[6] == Translated(None, "quota: no more until tomorrow")
    assert translate(texts, Shout(), tmp_path / "cache") == ok(*"ABCDEFGH")


KILLED = """
import sys, time
from pathlib import Path
from clipita_train.data.pairs.translate import translate

class Slow:
    name, identity, batch, longest = "slow", (), 2, 100
    def translate(self, texts):
        time.sleep(0.05)
        return [text.upper() for text in texts]

translate([f"text {i}" for i in range(1000)], Slow(), Path(sys.argv[1]))
"""


def test_a_kill_loses_no_batch_that_came(tmp_path):
    cache = tmp_path / "cache"
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(cache)])

    def kept():
        try:
            with sqlite3.connect(cache) as file:
                return file.execute("SELECT count(*) FROM translations").fetchone()[0]
        except sqlite3.OperationalError:  # not made yet
            return 0

    deadline = time.monotonic() + 120
    while kept() < 10 and time.monotonic() < deadline:
        time.sleep(0.02)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    engine = Shout(patience=999)
    engine.name = "slow"
    before = kept()
    assert 10 <= before < 1000
    translate([f"text {i}" for i in range(1000)], engine, cache)
    assert len(engine.texts) == 1000 - before


# --- DeepL


class DeepLApi:
    """DeepL's API as far as translating goes: developers.deepl.com/docs."""

    def __init__(self, web):
        self.web, self.glossaries, self.limit = web, {}, 10**9
        web.pages = {"/v2/translate": self.translate, "/v2/glossaries": self.glossary}

    def reply(self, handler, status, content):
        answer(json.dumps(content).encode(), status, Content_Type="application/json")(handler)

    def allowed(self, handler):
        if handler.headers["Authorization"] != "DeepL-Auth-Key key":
            answer(b"", 403)(handler)
            return False
        return True

    def translate(self, handler):
        request = json.loads(self.web.requests[-1].body)
        texts = request["text"]
        if not self.allowed(handler):
            return
        if any("poison" in text for text in texts) or request["target_lang"] not in ("IT", "DE"):
            self.reply(handler, 400, {"message": "Value for 'text' not supported."})
            return
        self.limit -= sum(map(len, texts))
        if self.limit < 0:
            self.reply(handler, 456, {"message": "Quota exceeded"})
            return
        terms = self.glossaries.get(request.get("glossary_id"), {}).get("terms", {})
        translations = [
            {"detected_source_language": "EN", "text": f"IT:{terms.get(text, text)}", "billed_characters": len(text)}
            for text in texts
        ]
        self.reply(handler, 200, {"translations": translations})

    def glossary(self, handler):
        if handler.command == "POST":
            request = json.loads(self.web.requests[-1].body)
            made = {
                "glossary_id": f"id-{len(self.glossaries)}",
                "name": request["name"],
                "ready": True,
                "source_lang": request["source_lang"],
                "target_lang": request["target_lang"],
                "creation_time": "2026-01-01T00:00:00.000000Z",
                "entry_count": 1,
            }
            terms = dict(line.split("\t") for line in request["entries"].splitlines())
            self.glossaries[made["glossary_id"]] = {"made": made, "terms": terms}
            self.reply(handler, 201, made)
            return
        self.reply(handler, 200, {"glossaries": [glossary["made"] for glossary in self.glossaries.values()]})

    def engine(self, **settings):
        return DeepL(EngineSettings("deepl", **settings), server=self.web.address(""))


@pytest.fixture
def api(monkeypatch):
    monkeypatch.setenv("DEEPL_AUTH_KEY", "key")
    monkeypatch.setattr(deepl.http_client._BackoffTimer, "BACKOFF_INITIAL", 0.01)
    web = Web()
    yield DeepLApi(web)
    web.close()


def sent(api):
    return [json.loads(request.body)["text"] for request in api.web.requests if request.path == "/v2/translate"]


def test_deepl_is_asked_in_batches_with_the_key(api, tmp_path):
    texts = [f"caption {i}" for i in range(120)]
    assert translate(texts, api.engine(), tmp_path / "cache") == ok(*[f"IT:{text}" for text in texts])
    assert [len(batch) for batch in sent(api)] == [50, 50, 20]
    request = json.loads(api.web.requests[0].body)
    assert (request["source_lang"], request["target_lang"]) == ("EN", "IT")
    assert translate(texts, api.engine(), tmp_path / "cache") == ok(*[f"IT:{text}" for text in texts])
    assert len(sent(api)) == 3


def test_deepl_large_texts_make_smaller_requests(api, tmp_path):
    translate(["a" * 9000, "b" * 9000, "c" * 9000], api.engine(), tmp_path / "cache")
    assert [len(batch) for batch in sent(api)] == [2, 1]


def test_deepl_a_caption_that_it_refuses_stands_alone(api, tmp_path):
    texts = [f"caption {i}" for i in range(20)]
    texts[13] = "poison"
    results = translate(texts, api.engine(), tmp_path / "cache")
    assert [i for i, result in enumerate(results) if result.text is None] == [13]
    assert "failed: Bad request" in results[13].status
    assert "not supported" in results[13].status


def test_deepl_that_refuses_every_caption_is_an_error(api, tmp_path):
    with pytest.raises(ValueError, match="refuses all of 50 captions"):
        translate([f"caption {i}" for i in range(60)], api.engine(target="xx"), tmp_path / "cache")


def test_deepl_quota_stops_and_the_next_month_goes_on(api, tmp_path):
    texts = [f"caption {i:03}" for i in range(100)]  # 11 characters each
    api.limit = 11 * 60
    results = translate(texts, api.engine(), tmp_path / "cache")
    assert [result.status for result in results[:50]] == ["ok"] * 50
    assert {result.status.partition(":")[0] for result in results[50:]} == {"quota"}
    api.limit = 10**9
    assert translate(texts, api.engine(), tmp_path / "cache") == ok(*[f"IT:{text}" for text in texts])
    assert sent(api)[-1] == texts[50:]


def test_deepl_quota_that_ends_within_a_halved_batch_loses_nothing_paid(api, tmp_path):
    texts = [f"caption {i:03}" for i in range(40)]
    texts[25] = "poison"
    api.limit = 11 * 25  # the first half, and five of the second
    first = translate(texts, api.engine(), tmp_path / "cache")
    assert [result.status for result in first[:25]] == ["ok"] * 25
    api.limit, before = 10**9, len(sent(api))
    again = translate(texts, api.engine(), tmp_path / "cache")
    assert [i for i, result in enumerate(again) if result.text is None] == [25]
    assert not set(texts[:25]) & {text for batch in sent(api)[before:] for text in batch}


def test_deepl_that_is_busy_is_tried_again_and_one_that_stays_so_stops(api, tmp_path, monkeypatch):
    api.web.pages["/v2/translate"] = [answer(b"", 429), answer(b"", 503), api.translate]
    assert translate(["a"], api.engine(), tmp_path / "cache") == ok("IT:a")
    monkeypatch.setattr(deepl.http_client, "max_network_retries", 2)
    api.web.pages["/v2/translate"] = answer(b"", 429)
    assert translate(["a", "b"], api.engine(), tmp_path / "cache")[0] == Translated("IT:a", "ok")
    (stopped,) = translate(["b"], api.engine(), tmp_path / "cache")
    assert stopped.status.startswith("unavailable: Too many requests")


def test_deepl_glossary_is_made_once(api, tmp_path):
    settings = {"glossary": {"mouse": "topolino", "river": "fiume"}}
    assert translate(["mouse", "cat"], api.engine(**settings), tmp_path / "a") == ok("IT:topolino", "IT:cat")
    assert translate(["mouse"], api.engine(**settings), tmp_path / "b") == ok("IT:topolino")
    assert len(api.glossaries) == 1
    assert translate(["mouse"], api.engine(), tmp_path / "a") == ok("IT:mouse")


def test_deepl_model_type_is_sent_and_kept_apart(api, tmp_path):
    translate(["a"], api.engine(), tmp_path / "cache")
    translate(["a"], api.engine(model="quality_optimized"), tmp_path / "cache")
    requests = [json.loads(request.body) for request in api.web.requests]
    assert [request.get("model_type") for request in requests] == [None, "quality_optimized"]


def test_deepl_without_a_good_key_says_where_it_goes(api, tmp_path, monkeypatch):
    monkeypatch.setenv("DEEPL_AUTH_KEY", "wrong")
    with pytest.raises(ValueError, match="does not take the key in DEEPL_AUTH_KEY"):
        translate(["a"], api.engine(), tmp_path / "cache")
    monkeypatch.delenv("DEEPL_AUTH_KEY")
    with pytest.raises(ValueError, match="set DEEPL_AUTH_KEY"):
        api.engine()


def test_engines_are_known_by_name():
    with pytest.raises(ValueError, match="no engine is called 'google'; there are: deepl, ctranslate2"):
        open_engine(EngineSettings("google"))


# --- CTranslate2


@pytest.fixture(scope="module")
def opus(tmp_path_factory):
    """The folder of a converted model, and the model and tokenizer in transformers."""
    from support.tiny_translators import convert, opus_mt

    folder = tmp_path_factory.mktemp("opus")
    model, tokenizer = opus_mt(folder / "transformers")
    convert(folder / "transformers", ["source.spm", "target.spm"], folder / "converted")
    return folder, model, tokenizer


@pytest.fixture(scope="module")
def m2m100(tmp_path_factory):
    """Likewise, of a model of many languages."""
    from support.tiny_translators import convert, m2m100

    folder = tmp_path_factory.mktemp("m2m100")
    model, tokenizer = m2m100(folder / "transformers")
    convert(folder / "transformers", ["sentencepiece.bpe.model"], folder / "converted")
    return folder, model, tokenizer


def local(folder, **settings):
    return open_engine(EngineSettings("ctranslate2", model=str(folder / "converted"), **settings))


@pytest.mark.parametrize(("name", "beams"), [("opus", 1), ("opus", 4), ("m2m100", 1)])
def test_translations_are_those_of_transformers(name, beams, request):
    from support.tiny_translators import sentences, translated

    folder, model, tokenizer = request.getfixturevalue(name)
    texts = [*sentences(60, seed=1), "cat zebra house", "Cat."]
    batch = tokenizer(texts, return_tensors="pt", padding=True)
    first = {"forced_bos_token_id": tokenizer.get_lang_id("it")} if name == "m2m100" else {}
    generated = model.generate(**batch, **first, num_beams=beams, do_sample=False, max_length=50)
    results = local(folder, beams=beams).translate(texts)
    expected = tokenizer.batch_decode(generated, skip_special_tokens=True)
    assert results == [text.removeprefix("__it__").strip() for text in expected]  # no special token to transformers 5
    assert len(set(results)) > 5
    if name == "m2m100":  # trained less
        return
    right = sum(result == translated(text) for result, text in zip(results[:60], texts[:60], strict=True))
    assert right >= 55  # it was trained on these words: what is compared are translations


def test_a_language_that_the_model_does_not_know_is_an_error(m2m100):
    with pytest.raises(ValueError, match="knows no language 'tlh'"):
        local(m2m100[0], source="tlh")
    with pytest.raises(ValueError, match="knows no language 'tlh'"):
        local(m2m100[0], target="tlh")


def test_opus_mt_names_what_it_cannot_translate(opus, tmp_path):
    folder = opus[0]
    short, long = translate(["cat", "cat " * 450], local(folder), tmp_path / "cache")
    assert short == Translated("gatto", "ok")
    assert long == Translated(None, "failed: more than 400 pieces")


def test_another_model_is_another_translation(opus, tmp_path):
    folder = opus[0]
    shutil.copytree(folder / "converted", tmp_path / "converted")
    assert local(tmp_path).identity == local(folder).identity
    with (tmp_path / "converted" / "model.bin").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x01")
    assert local(tmp_path).identity != local(folder).identity
    assert local(folder, beams=1).identity != local(folder).identity


def test_nllb_has_other_names_of_languages(m2m100, tmp_path):
    folder = m2m100[0]
    shutil.copytree(folder / "converted", tmp_path / "converted")
    names = tmp_path / "converted" / "shared_vocabulary.json"
    text = names.read_text().replace('"__en__"', '"eng_Latn"').replace('"__it__"', '"ita_Latn"')
    names.write_text(text)
    texts = ["cat", "red house near water"]
    assert local(tmp_path).translate(texts) == local(folder).translate(texts)


def test_opus_mt_of_several_languages_is_told_which(opus, tmp_path):
    folder = opus[0]
    shutil.copytree(folder / "converted", tmp_path / "converted")
    names = tmp_path / "converted" / "shared_vocabulary.json"
    tokens = json.loads(names.read_text())
    names.write_text(json.dumps([*tokens[:-1], ">>fra<<"]))
    with pytest.raises(ValueError, match="knows no language"):
        local(tmp_path)
    names.write_text(json.dumps([*tokens[:-1], ">>ita<<"]))
    assert local(tmp_path)._before == [">>ita<<"]


FROM_HUB = """
import sys
from clipita.errors import ClipitaError
from clipita_train.data.pairs.engines import EngineSettings, open_engine
for model in sys.argv[1:]:
    try:
        print(open_engine(EngineSettings("ctranslate2", model=model)).translate(["cat"]))
    except ClipitaError as error:
        print(type(error).__name__)
"""


def test_models_come_from_the_hub(opus, tmp_path):
    hub = Hub()
    hub.repositories["prova/opus"] = {COMMIT: opus[0] / "converted"}
    models = ["prova/opus", f"prova/opus@{COMMIT}", "prova/opus@other", "prova/none", "no folder"]
    command = [sys.executable, "-c", FROM_HUB, *models]
    done = subprocess.run(command, env=hub.environment(tmp_path), capture_output=True, text=True, check=False)
    hub.server.shutdown()
    hub.server.server_close()
    assert done.stdout.splitlines() == ["['gatto']"] * 2 + ["ModelNotFoundError"] * 3, done.stderr


def test_models_that_are_not_converted_say_how(opus, tmp_path):
    with pytest.raises(ValueError, match=r"ct2-transformers-converter --model .*transformers"):
        open_engine(EngineSettings("ctranslate2", model=str(opus[0] / "transformers")))
    (tmp_path / "model.bin").touch()
    with pytest.raises(ValueError, match=r"neither source\.spm and target\.spm nor sentencepiece\.bpe\.model"):
        open_engine(EngineSettings("ctranslate2", model=str(tmp_path)))
    with pytest.raises(ValueError, match="no glossaries"):
        local(opus[0], glossary={"cat": "micio"})
