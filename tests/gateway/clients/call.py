"""Import all of a generated client and call the gateway by it. usage: FOLDER URL IMAGE"""

import importlib
import pkgutil
import sys
from io import BytesIO
from pathlib import Path

folder, url, image = sys.argv[1:]
sys.path.insert(0, folder)

import wanwu_client  # noqa: E402

for module in pkgutil.walk_packages(wanwu_client.__path__, "wanwu_client."):
    importlib.import_module(module.name)

from wanwu_client import Client, models  # noqa: E402
from wanwu_client.api.banks import banks  # noqa: E402
from wanwu_client.api.embed import embed  # noqa: E402
from wanwu_client.api.recognise import predict, recognize  # noqa: E402
from wanwu_client.types import File  # noqa: E402

data = Path(image).read_bytes()
client = Client(base_url=url, timeout=60)


def file():
    return File(payload=BytesIO(data), file_name="cat.jpg", mime_type="image/jpeg")


named = predict.sync(client=client, body=models.PredictFilesBody(file=file()))
assert len(named.results) == 5, named
body = models.RecognizeFilesBody(file=[file()], labels=["猫", "狗"], top_k=1)
found = recognize.sync(client=client, body=body)
assert found.results[0].predictions[0].label == "猫", found
found = embed.sync(client=client, body=models.EmbedJsonBody(texts=["猫"]))
assert len(found.texts) == 1, found
assert banks.sync(client=client).banks[0].name == "default"
refused = recognize.sync(client=client, body=models.RecognizeJsonBody(images=["AAAA"]))
assert refused.code == "picture_type_unsupported", refused
print("called")  # noqa: T201
