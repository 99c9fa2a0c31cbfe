"""List albums: photographs of one person or place each, in folders that `labels/folders.tsv` names."""

import re

from clipita_train.data.photographs.collection import in_folders

# Wallpapers by the time of day, which pupils of one course chose for a page with a clock.
HOURS = (
    "artemnovik1529/imagesForMomentum",
    "MikhailStn/images",
    "Olmeor/momentum-backgrounds",
    "igo-l/Momentum-resources",
    "norsuwhe/imgMomentum",
    "viGITory/momentum-images",
    "ViachaslauBY/images",
    "mabay919/momentum",
)

# Photographs of one person or place each, sorted into folders.
ALBUMS = (
    "carolynwang/carolynwang.github.io",
    "karthik07m/myphotography-website",
    "MohammedFadul/Projects-GalaryExplorer7.github.io",
    "SPChandraSekhar333/OYOLA",
    "Snippet-Softwares/photography",
    "Atwiinesteve/javascript_gallery_project",
    "huynhtiennhat0403/vietnamese-landmark-classifier",
    "SchlachterSchmidt/topatagonia.xyz.assets",
    "beeva-enriqueotero/dl4architecture-demo",
    "FilMinFrames/photos",
    "GuiMoaneFotografia/guimoanefotografia.github.io",
    "herbasVojta/personal_photography_website_static",
    "emanuilstoykov/wallpapersHD",
    "tyler-cr/PhotoPortfolio",
    "cjlather/cjlather.github.io",
    "haidedang/jPusitzky",
    "Juliancreates/JEPhoto",
    "fisherlyon/Photo-Website",
    "29swastik/swastik-chaayagraahaka",
    "fofanise/zhlobin",
    # New in the sixth edition of clipita-mini:
    "kotayoshida/kotayoshidaphotography",
    "mattSMobley/sarahHamilton",
    "MarinaPrivalova/photographer-portfolio",
    "CoolCoderSJ/Photography",
    "Ararat1/vanadzor-city-v1",
    "fiass/Photos",
    "gailkirklandphotography/gailkirklandphotography.github.io",
    "danielszenasi/themillionphotos",
    "AwatifRehmani/ArtIT",
    "Maguod/test_GIT",
    "Uvacoder/photography-bzsol",
    "sorokin-av/fotograf-master",
    "czechThomas/photoweb2.0",
    "dazovgit/photoPortfolio",
    "shubhamkumbhakar27/tanmoy-photography",
    "Patojuvinay/FrameFusion",
    "karthikmass/candid2",
    "Cshields88/Shields-Photography-Redesign-2017",
    "jemccarthy13/clairefoto",
    "Derekajuliano/derek-apple-photography",
    "emilyspieler/emily_spieler_photography",
    "JennieKPhotography/main",
    "aleksandrdmitriev/myborkova.ru",
    "LindsayFern1/lfPhotography",
    "kalam-md/porto-photo",
    "kvetaren/sesto",
    "thedylone/travel-history",
    "flamers1500/photography",
    "kevboutin/ivanaandkevin",
    "zachdavid/wedding-website",
    "shilohwills/photographers-portfolio",
    "lukangping/lixinyinxiang",
    "nikolaymarcmin/nikolaymarcmin.github.io",
    "Hanaimagery/Hanaimagery.github.io",
    "kamalasekar091/kamalasekar091.github.io",
    "danhloi1996/wedding",
    "isaiahandabigail/isaiahandabigail.github.io",
    "trungtt93/wedding",
    "losos1k/rachael",
    "dumenko111/vacation_in_Greece",
    "myhorsevideo1-boop/wallpaper-assets",
    "s-code-maker/photographer-rubin",
    "babyclicks/babyclicks.github.io",
    "xosrika/Image-Gallery",
    "jeeshnavbalaji/PhotographyWebsite",
    "patrickjholloway/old_photo_site",
    "rob-chambers/PhotoWebsite",
    "vkdevz/vkshotz",
    "rebeccametts/sassafras",
    "jack8881/moments",
    "alexporter/wedding",
    "stuyam/wedding-website",
    "paulgreenwood67/HTML-Portfolio",
    "itzjacki/kfoto",
    "r3dbob/archive",
    "baturian/baturian.github.io",
    "VisionShots/VisionShots",
    "Hagar00/karim-photography",
    "webknit/nick-and-steph",
    "relayworks/ch-wedding",
    "GAURAVMALODE95/photography-demo",
    "yiwenzh96/yiwenzh96.github.io",
    "OskarThorir/oskarthorir.github.io",
    "vchattar/20220109",
    "jullan93/fotobyjullan",
    "milkycocomoon/momentum_images",
    "kingslayerdev/ggmv",
    "senior-vova/armmap-images",
)

# What albums state at their top; the others state none.
LICENSES = {
    "baturian/baturian.github.io": "GPL-3.0",
    "emilyspieler/emily_spieler_photography": "CC BY 3.0, which is that of the page's design",
    "kevboutin/ivanaandkevin": "MIT",
    "rebeccametts/sassafras": "Apache-2.0",
    "shilohwills/photographers-portfolio": "MIT",
    "stuyam/wedding-website": "MIT",
}


def _owner(repository: str) -> str:
    """Return the owner of a repository in small letters, with underscores."""
    return re.sub(r"[^a-z0-9]+", "_", repository.split("/")[0].lower()).strip("_")


ALBUM_COLLECTIONS = (
    *(in_folders(f"hours_{_owner(repository)}", repository, "none stated", train=40) for repository in HOURS),
    *(
        in_folders(f"album_{_owner(repository)}", repository, LICENSES.get(repository, "none stated"), train=120)
        for repository in ALBUMS
    ),
)
