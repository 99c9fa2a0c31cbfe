"""Provide lists of Italian labels for `zero_shot` and `label_bank`, as in `model.label_bank(italian_labels.ANIMALS)`.

Most nouns are bare, since `label_bank` adds the article; a label that needs another one has it.
"""

ANIMALS = (
    "gatto", "cane", "cavallo", "mucca", "pecora", "capra", "maiale", "asino", "coniglio", "gallina", "gallo", "oca",
    "anatra", "tacchino", "piccione", "passero", "aquila", "gufo", "pappagallo", "gabbiano", "cigno", "pinguino",
    "struzzo", "orso", "lupo", "volpe", "cervo", "cinghiale", "riccio", "scoiattolo", "topo", "leone", "tigre",
    "elefante", "giraffa", "zebra", "ippopotamo", "rinoceronte", "scimmia", "gorilla", "canguro", "koala", "panda",
    "cammello", "delfino", "balena", "foca", "squalo", "polpo", "granchio", "medusa", "tartaruga", "lucertola",
    "serpente", "coccodrillo", "rana", "farfalla", "ape", "coccinella", "ragno", "formica", "lumaca",
)  # fmt: skip

FOOD = (
    "piatto di pasta", "piatto di spaghetti", "lasagna", "risotto", "zuppa", "insalata", "pizza", "focaccia",
    "panino", "hamburger", "bistecca", "pollo arrosto", "pesce alla griglia", "frittata", "tagliere di salumi",
    "formaggio", "del pane", "del prosciutto", "delle patatine fritte", "degli gnocchi", "dei ravioli", "delle cozze",
    "del sushi", "mela", "pera", "banana", "arancia", "limone", "fragola", "grappolo d'uva", "anguria", "ananas",
    "pomodoro", "carota", "melanzana", "peperone", "zucca", "carciofo", "fungo", "torta", "gelato", "tiramisù",
    "cornetto", "biscotto", "ciambella", "cioccolato", "caffè", "cappuccino", "tazza di tè", "bicchiere di vino",
    "boccale di birra",
)  # fmt: skip

NEWSROOM = (
    "partita di calcio", "gara di ciclismo", "partita di tennis", "partita di pallacanestro", "gara di nuoto",
    "corsa automobilistica", "politico che parla al microfono", "seduta del parlamento", "conferenza stampa",
    "manifestazione di piazza", "sciopero", "processo in tribunale", "incidente stradale", "incendio", "alluvione",
    "terremoto", "scena di guerra", "pattuglia della polizia", "vigile del fuoco", "ospedale", "scuola", "concerto",
    "spettacolo teatrale", "sfilata di moda", "mostra d'arte", "scena di un film", "fabbrica", "borsa valori",
    "mercato", "laboratorio scientifico", "razzo", "computer", "veduta di una città", "paesaggio", "spiaggia",
    "grafico", "mappa", "ritratto", "cerimonia religiosa",
)  # fmt: skip

HERITAGE = (
    "chiesa", "cattedrale", "campanile", "abbazia", "chiostro", "battistero", "castello", "torre", "palazzo storico",
    "villa", "piazza", "fontana", "ponte antico", "acquedotto romano", "anfiteatro", "teatro antico", "tempio greco",
    "arco di trionfo", "mura antiche", "rovine", "tomba", "necropoli", "statua", "busto di marmo", "bassorilievo",
    "mosaico", "affresco", "dipinto a olio", "pala d'altare", "icona", "manoscritto miniato", "libro antico",
    "pergamena", "stampa antica", "carta geografica antica", "vaso greco", "anfora", "moneta antica",
    "gioiello antico", "armatura", "spada", "arazzo", "strumento musicale", "fotografia d'epoca", "mobile antico",
    "orologio antico", "ceramica",
)  # fmt: skip

RETAIL = (
    "maglietta", "camicia", "maglione", "felpa", "giacca", "cappotto", "pantaloni", "dei jeans", "gonna", "vestito",
    "pigiama", "costume da bagno", "calzino", "cravatta", "sciarpa", "cappello", "cintura", "borsa", "zaino",
    "portafoglio", "valigia", "scarpa da ginnastica", "stivale", "sandalo", "orologio", "anello", "collana",
    "occhiali da sole", "ombrello", "telefono", "computer portatile", "televisore", "fotocamera", "cuffie", "lampada",
    "sedia", "tavolo", "divano", "letto", "armadio", "tappeto", "cuscino", "specchio", "pentola", "padella", "piatto",
    "bicchiere", "tazza", "bottiglia", "giocattolo", "orsacchiotto", "libro", "bicicletta", "profumo", "rossetto",
    "shampoo", "detersivo", "aspirapolvere", "lavatrice", "frigorifero",
)  # fmt: skip
