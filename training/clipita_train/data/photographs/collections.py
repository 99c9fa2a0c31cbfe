"""The collections of photographs that clipita-mini is trained and judged on.

Nothing is downloaded here; `clipita-train sources` prints the commands that get them.
"""

from functools import partial

from clipita_train.data.photographs.albums import ALBUM_COLLECTIONS
from clipita_train.data.photographs.captioned import (
    captions_table,
    markdown_images,
    named_files,
    texts_beside,
    words_json,
)
from clipita_train.data.photographs.collection import Collection, in_folders
from clipita_train.data.photographs.readers import (
    FLICKR8K_CAPTIONS,
    animal_pose,
    caltech101,
    classes_table,
    clothing,
    flickr8k,
    grocery,
    imagenet_named,
    imagenet_samples,
    kept_out,
    tiny_imagenet,
)

COLLECTIONS = (
    Collection("tiny_imagenet", "seshuad/IMagenet", "ImageNet terms: research", partial(tiny_imagenet, train=120)),
    Collection("caltech101", "MachineLearning2020/Homework2-Caltech101", "CC BY 4.0", caltech101),
    Collection("grocery", "marcusklasson/GroceryStoreDataset", "MIT", grocery),
    Collection("clothing", "alexeygrigorev/clothing-dataset-small", "CC0", clothing),
    Collection("imagenet_samples", "EliSchwartz/imagenet-sample-images", "ImageNet terms: research", imagenet_samples),
    Collection(
        "flickr8k",
        "RlNZLER/Image-Text-Matching",
        "Flickr8k terms: research",
        flickr8k,
        commit="56a15d913c3f290e2ee896386ece6076c1eea02e",
        further=(FLICKR8K_CAPTIONS,),
    ),
    in_folders(
        "miniplaces",
        "rathull/CTFs",
        "Places terms: research",
        train=400,
        dev=20,
        commit="f35c219885f163ca00a045236dd44be489598837",
    ),
    in_folders(
        "rooms_places365",
        "SilviuBR24/room-classification",
        "Places365 terms: research",
        train=600,
    ),
    Collection(
        "animal_pose",
        "mateusrafael4/Atividade_programacao_pose_estimation",
        "none stated; PASCAL VOC: research",
        partial(animal_pose, train=700),
    ),
    in_folders("pacs_photo", "MachineLearning2020/Homework3-PACS", "none stated", train=250),
    in_folders(
        "cats_pandas_vehicles",
        "yahyasarhan22/comparative-study-of-image-classification",
        "none stated",
        train=250,
    ),
    in_folders("houses", "emanhamed/Houses-dataset", "none stated", train=250),
    in_folders("man_woman", "stepanovnv95/NeuralMirror", "none stated", train=250),
    in_folders("bird_cat_dog", "linlawre/CMPE258_hw1", "none stated", train=250),
    in_folders("dogs_vs_cats", "ardamavi/Dog-Cat-Classifier", "none stated", train=250),
    in_folders(
        "chair_computer_cup_transport",
        "krish212/vgg",
        "none stated",
        train=250,
    ),
    in_folders("furniture3", "Kshitiz07/furniture_classification", "none stated", train=250),
    in_folders("flower_photos", "atiaisaac/flowers_classification", "CC BY", train=150),
    in_folders("imagenette", "thunderInfy/imagenette", "ImageNet terms: research", train=60),
    in_folders("instruments", "aizadaaskar/dl-homework", "none stated", train=80),
    in_folders("food101_64px", "Gandolier/genai_food101_repo", "Food-101 terms: research", train=60),
    in_folders(
        "freiburg_groceries",
        "aleksandar-aleksandrov/groceries-object-detection-dataset",
        "none stated; Freiburg Groceries: research",
        train=150,
    ),
    in_folders("fruits262_10", "mohabmahdy/dataset_fruit", "none stated", train=200),
    in_folders("fruits40", "strgalt-t/Fruits-40-EU", "none stated", train=150),
    in_folders("fruits70", "aiglegivree/FoodClassifier", "none stated", train=50),
    in_folders("plums_apples", "XCr0s5X/Healthy-Diseased-Fruits-Vegetables", "none stated", train=100),
    in_folders("crops", "naveengct/crop_dataset", "none stated", train=100),
    in_folders(
        "livestock_100px",
        "iantagorda/image-classifier-for-farm-animals",
        "none stated",
        train=200,
    ),
    in_folders("popular_animals", "InputBlackBoxOutput/popular-animals-dataset", "MIT", train=120),
    in_folders("sun_a", "nhantd/CMU16720-Scene-Classification", "SUN terms: research", train=150),
    in_folders(
        "sun_b",
        "colegulino/Spatial-Pyramid-Matching-for-Scene-Classification",
        "SUN terms: research",
        train=150,
    ),
    in_folders(
        "sun_c",
        "Yorkbenno/Spatial-Pyramid-Matching-for-Scene-Classification",
        "SUN terms: research",
        train=150,
    ),
    in_folders(
        "sun_d",
        "akshay993/Spatial-Pyramid-Matching-for-Scene-Classification",
        "SUN terms: research",
        train=150,
    ),
    in_folders(
        "sun_e",
        "michael5511b/CV-Spatial-Pyramid-Matching-For-Scene-Classification",
        "SUN terms: research",
        train=150,
    ),
    in_folders(
        "intel_scenes",
        "yadavaditya13/Image_Classification_Using_Deep_Learning",
        "none stated",
        train=600,
    ),
    in_folders("meals", "khamar21/Meal-Detector-Backend", "none stated", train=150),
    in_folders("meals20", "Bhavyasree2013/AI-Calorie-Estimator", "none stated", train=80),
    in_folders("pizza_icecream", "ATG-5222/ImageClassification", "MIT", train=100),
    in_folders("vehicle_cnn", "pavlelukic/vehicle-cnn", "none stated", train=150),
    in_folders("buses", "PedroRodriguezHernandez/ImageViewer", "none stated", train=150),
    in_folders("beaches_mexico", "alexcavadora/places", "none stated", train=270),
    in_folders("weizmann_horses", "shenshutao/image_segmentation", "none stated; Weizmann: research", train=330),
    in_folders("monkey_species", "nikhildutta333/Monkey-Species-Classification", "none stated", train=220),
    in_folders("squirrels", "Nameless0612/squeek", "none stated", train=280),
    in_folders("oranges", "and-kul/fruits_dataset", "none stated; ImageNet terms: research", train=150),
    in_folders("pexels_small", "arslnysuf/image-data", "MIT", train=10),
    in_folders("professions", "ninja3697/Profession-Detection-System", "MIT; IdenProf", train=600),
    in_folders("sports22", "ashishodu2023/image-classification-pytorch", "none stated", train=600),
    in_folders("weather6", "pmlodzianowski/WeatherClassification", "none stated", train=400),
    in_folders("sunrise_sunset", "supriya357/sunrise-sunset-classifier", "none stated", train=200),
    in_folders(
        "fog_traffic", "ankitaS11/Vechicle-Detection-in-Adverse-Weather", "none stated; DAWN: research", train=120
    ),
    in_folders("desk_things", "Chima200057/PDE3802_CW1a", "none stated", train=200),
    in_folders("waste", "congduytran12/Trash-Classification-", "none stated; TrashNet: MIT", train=120),
    in_folders("chess_pieces", "tunlaton11/Chess-Image-Recognition-Project", "none stated", train=300),
    in_folders("coworking", "getcroissant/coworking-stock-photos", "none stated", train=160),
    Collection("imagenet_1000", "ajschumacher/imagen", "ImageNet terms: research", imagenet_named),
    Collection(
        "landscapes",
        "mohammadzainabbas/Deep-Learning-CS",
        "none stated",
        captions_table("data/raw/input_images/*", "data/captions.csv", name="image", texts=["caption"]),
    ),
    Collection(
        "flowers102",
        "Igoreduardobraga/Image-to-text-Deep-Learning",
        "none stated; Oxford-102: research",
        captions_table("jpg/*", "captions.csv", name="file", texts=["caption"], take=1500),
    ),
    Collection(
        "sports_vietnamese",
        "DoDucDat642004/data_image_caption",
        "none stated",
        captions_table("images/*", "captions.txt", without=[f"0000{n}" for n in range(237, 242)]),  # of COCO val2014
    ),
    Collection(
        "sports_capydata",
        "vnpq/CapyData_SportImageClassifier",
        "none stated",
        captions_table("data/raw_images/*", "data/captions.txt", delimiter="\t"),
    ),
    *(
        Collection(
            f"heritage{part}",
            "irfanamal/HeritageImageCaptioning",
            "none stated",
            captions_table(
                f"dataset/data{part}/images/*", f"dataset/data{part}/dataset.csv", name="filename", texts=texts
            ),
        )
        for part, texts in ((1, ["caption"]), (3, [f"caption{n}" for n in range(1, 6)]))
    ),
    Collection(
        "rslang",
        "rolling-scopes-school/react-rslang-be",
        "MIT",
        words_json("words/words.json", image="image", texts=["word", "textExample"]),
    ),
    Collection(
        "fashion",
        "knowrohit/Fashion-Rec-Sys",
        "none stated",
        captions_table("data/*/*/*", "data/fashion.csv", name="Image", texts=["ProductTitle"], take=1800),
    ),
    Collection(
        "houses_described",
        "jcalz23/lora-stable-diffusion-houses",
        "none stated",
        captions_table("data/imgs/*", "data/metadata.jsonl", name="file_name", texts=["text"]),
    ),
    Collection(
        "products",
        "Demyan228/tbank_sirius_cv",
        "none stated",
        captions_table("sirius_data/*", "descriptions.csv", name="file_name", texts=["short_desc"]),
    ),
    Collection("word_game", "limingqing61/word_game", "none stated", named_files("images/*")),
    Collection("spell_quest", "nirmalkumargcp-ux/spell-quest", "none stated", named_files("images/*")),
    Collection("finnish_cards", "pydeoxy/suomi_englanti_cards", "none stated", named_files("images/*")),
    Collection("animapi", "aosasona/animapi", "none stated", named_files("images/*.jpeg")),
    in_folders("sports100", "HoldenLauer/Sports_Image_Classification", "none stated", train=60),
    in_folders("day_or_night", "luchko/digital-camera-day-or-night", "MIT License", train=330),
    in_folders("portfolio_liscf4", "liscf4/my-portfolio-images", "none stated", train=60),
    in_folders("phone_sunsets", "shreyas2k4/vihanproject", "none stated", train=60),
    in_folders(
        "family_events", "anurag173/Event-Classification-For-Personal-Photo-Collections-", "none stated", train=600
    ),
    in_folders("food101_512px", "srohit0/food_mnist", "Food-101: research only", train=100),
    Collection(
        "activities",
        "umareddy123/Human_activity_recognition",
        "none stated",
        classes_table("activities", "train", "Training_set.csv", name="filename", label="label", take=800),
    ),
    *ALBUM_COLLECTIONS,
    # New in the sixth edition of clipita-mini, as the last of ALBUMS.
    in_folders(
        "scenes_gray",
        "jaaumeadrover/Landscape-Image-Classification",
        "none stated; Fifteen Scenes: research",
        train=100,
    ),
    Collection(
        "from_above",
        "RitaRamo/image-caption-remote-sensing-images",
        "none stated; RSICD: research; captions Apache-2.0",
        captions_table(
            "src/datasets/RSICD/raw_dataset/RSICD_images/*",
            "../../arampacha/CLIP-rsicd/data/textaug_train_rsicd.jsonl",
            name="filename",
            texts=["captions"],
            take=3000,
        ),
        further=("arampacha/CLIP-rsicd",),
    ),
    Collection(
        "at_home",
        "SoroushRaeisian/miniclip",
        "none stated",
        captions_table("data/images/*", "data/captions.json", name="file_name", texts=["caption"]),
    ),
    Collection(
        "unsplash_captioned",
        "Faizan711/multimodal-search",
        "none stated; Unsplash license",
        captions_table("data/images/[0-9]*", "data/captions.csv", name="filename", texts=["caption"]),
    ),
    Collection(
        "exam",
        "DataScience-Lab-Yonsei/DSL-23-1-modeling-AuToeic",
        "none stated",
        captions_table("data/train/*", "data/train/metadata.jsonl", name="file_name", texts=["text"]),
    ),
    Collection(
        "chinese_news",
        "1599421259/Web_News_Datasets",
        "none stated; newspapers: research",
        texts_beside(
            *(
                f"images/{part}/*"
                for part in ("culture", "people's_livelihood", "ecology", "economy", "education", "sports")
            ),
            texts="texts",
        ),
    ),
    Collection(
        "weather5",
        "shubhankarm01/Weather-image-classification",
        "none stated",
        classes_table("weather5", "train", "Training_set.csv", name="filename", label="label", take=300),
    ),
    Collection(
        "nature_of_europe", "travelyourlife/Progetto_Viaggio_Europa_2026", "none stated", named_files("images/nature/*")
    ),
    Collection("english_website", "oscardoso26/englishwebsite", "none stated", named_files("images/*")),
    Collection(
        "english_vocabulary",
        "userownmaa/EnglishVocabulary",
        "none stated",
        named_files(
            "app/src/main/res/drawable/*.[jw]*",
            without=["*_*", "fat", "ugly"],  # backgrounds and buttons; what is no word for a person
        ),
    ),
    Collection(
        "recipes", "LukeSmithxyz/based.cooking", "public domain", markdown_images("content/*.md", roots=["static"])
    ),
    # Never trained on: photographs of everyday things from other places, for judging.
    in_folders("animals8", "herene/animals_pictures_classification", "none stated", train=0, dev=100),
    in_folders(
        "vehicles_unsplash",
        "set-kaung/Image-Classification-Project",
        "none stated",
        train=0,
        dev=100,
    ),
    in_folders("painting_finder", "lqhl/Painting-Finder", "MIT", train=0, dev=60),
    in_folders("fruits3", "Reenatrilok/Reena_T_MLT_CM23044", "none stated", train=0, dev=100),
    in_folders("food4", "fatemeoz/FoodClassifier", "none stated", train=0, dev=100),
    in_folders("corel1000", "lamraouii/CBIR-Prjct", "none stated; Corel: research", train=0, dev=100),
    in_folders(
        "animals10_sample",
        "SamvelKarapetyaan/animal_classification",
        "none stated",
        train=0,
        dev=100,
    ),
    in_folders("fruits_phone", "MicrosoftLearning/AI-102-AIEngineer", "MIT", train=0, dev=100),
    in_folders("domes_interiors", "Piyush-1332/Domes-Interiors", "none stated", train=0, dev=100),
    # Never trained on either: `clipita-train evaluate presence` asks these.
    Collection("flash_cards", "IuliiaKonovalova/flash_cards", "none stated", kept_out("assets/images/*")),
    Collection("exp", "szepi92/exp", "none stated", kept_out("images/*", "old-images/*")),
    Collection("word_pics", "PJSoftCo/WordPics", "none stated", kept_out("*")),
    Collection("coco_search", "Sarthak-Thareja/semantic-image-search", "COCO terms", kept_out("data/images/*")),
)
