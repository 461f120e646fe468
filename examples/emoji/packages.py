"""The npm packages that raw.parquet is made of: which they are, and how they are obtained and opened."""

from __future__ import annotations

import base64
import configparser
import hashlib
import io
import os
import tarfile
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

REGISTRY = "https://registry.npmjs.org/"
MAX_MEMBER = 64 << 20  # bytes; the largest file that is read has 9 MB

Files = Mapping[str, bytes]  # a package's regular files by name, without the leading "package/"


class BuildError(SystemExit):
    """One line for the user."""

    def __init__(self, cause: str) -> None:
        super().__init__(f"build.py: {cause}")


@dataclass(frozen=True)
class Package:
    name: str
    version: str
    integrity: str  # sha512, base64, as the registry publishes it

    def __str__(self) -> str:
        return f"{self.name}@{self.version}"

    @property
    def file(self) -> str:
        """What `npm pack` calls it."""
        return f"{self.name.lstrip('@').replace('/', '-')}-{self.version}.tgz"

    @property
    def path(self) -> str:
        return f"{self.name}/-/{self.name.rpartition('/')[2]}-{self.version}.tgz"


@dataclass(frozen=True)
class Artist:
    name: str
    package: Package
    licence: str
    split: str  # of concepts that are trained on; for the others SPLIT_NEW


TEXTS = (
    Package(
        "cldr-annotations-full",
        "48.2.0",
        "DV7A+rEcgUSNTRsVGNGqBZRmAkGfwhGHO5Q1dRwzBoBnVrHWp804JP7/QJdEc66iHmx3+zLWVIMCFLm0lW7PUQ==",
    ),
    Package(
        "cldr-annotations-derived-full",
        "48.2.0",
        "log62km+AOzI7n/NEuNNFV0mg9DWnt67EYCh1RwxZq9dyRuyteB586LT83Ke8TchEfnwI9cIk2P31zO4nTvZmw==",
    ),
    Package(
        "emojibase-data",
        "17.0.0",
        "Yvgb5AWoHViHV/gq1qr5ZAarcBip+B27/ZLRsUJkbgAEaLlZ/fof9g882LTpmEpyhBNEC0m2SEmItljHsTygjA==",
    ),
)
ARTISTS = (
    Artist(
        "twemoji",
        Package(
            "@iconify-json/twemoji",
            "1.2.5",
            "uKpuIEV0v6K5BW3Mjdyl+XKFVAbbcPxAgifKvEMtZoUZB5+YiY5zaMm2uNNCxyXzAWU9yNLlj41WU6/mvgALsw==",
        ),
        "CC-BY-4.0",
        "train",
    ),
    Artist(
        "noto",
        Package(
            "@iconify-json/noto",
            "1.2.9",
            "DQiuXENbun41ch+XPSV55H9FaWKpHTyz46YIKtSaKYD4fIDDzL1tR6H4np/T38jfrTAeI3rcKF0mqHYeZVAuaw==",
        ),
        "Apache-2.0",
        "train",
    ),
    Artist(
        "noto-v1",
        Package(
            "@iconify-json/noto-v1",
            "1.2.5",
            "/DsVMius69Q0fRS53z7QK1TROSuar606jiIx+laXtdsYGMXpf6LtHBx6CGfoo3UHHb/XpBsw+1L1x3eyPqMuVA==",
        ),
        "Apache-2.0",
        "train",
    ),
    Artist(
        "emojitwo",
        Package(
            "@iconify-json/emojione",
            "1.2.3",
            "T9+T3HIbJNLKKsmxYKlaYhvnHYkz/HNYTV7SHCXVZPfeUi4FqskY70YeN8yYAZT8cCv7w5vJxS4Q1m8zb9CMMg==",
        ),
        "CC-BY-4.0",
        "train",
    ),
    Artist(
        "streamline",
        Package(
            "@iconify-json/streamline-emojis",
            "1.2.4",
            "iNr9T9XuZVTyQPJO8ZlLxBzPkpi7qMl+z1l0C31vpEMqhPMelth3n7CeWQYtixdetDPdI81yeG4ROqjWpYJE6A==",
        ),
        "CC-BY-4.0",
        "train",
    ),
    Artist(
        "fxemoji",
        Package(
            "@iconify-json/fxemoji",
            "1.2.2",
            "UAasRaxzFUKfIGSmLwnoarsssA4LX0VLLuEmplIqM6ZNQqIQRtav8tZ4H1neTlBreXuMQyAifr5jP4kn78DpiQ==",
        ),
        "Apache-2.0",
        "val-artist",
    ),
    Artist(
        "fluent-flat",
        Package(
            "@iconify-json/fluent-emoji-flat",
            "1.2.6",
            "RY47RgPb47fYUiyrA64sIOL0+UU02s29sXpNBbIQRBUlPlfNFTKUmZDERGuxDs/7yNGWqQYvuaSYM1M4fRXlUw==",
        ),
        "MIT",
        "test-artist",
    ),
    Artist(
        "fluent-3d",
        Package(
            "@lobehub/fluent-emoji-3d",
            "1.1.0",
            "Wlq2lVStTnr8BDpIJ0pEnTKO4LuDxxqTEhTvRtD1DLRF0me7ogeRQjKoehDHXuVJ2Qaecgl5wRBv60lUAG3h7g==",
        ),
        "MIT",
        "test-artist",
    ),
)


def registry(home: Path | None = None) -> str:
    """The registry that the user has configured for npm: the environment, then .npmrc here, then at home."""
    for name in ("npm_config_registry", "NPM_CONFIG_REGISTRY"):
        if os.environ.get(name):
            return os.environ[name]
    user = os.environ.get("NPM_CONFIG_USERCONFIG") or (home or Path.home()) / ".npmrc"
    for file in (Path(".npmrc"), Path(user)):
        if not file.is_file():
            continue
        settings = configparser.ConfigParser(
            interpolation=None, strict=False, allow_no_value=True, delimiters="="
        )
        settings.read_string("[npm]\n" + file.read_text())
        if found := settings["npm"].get("registry"):
            return found
    return REGISTRY


def obtain(package: Package, folder: Path | None) -> bytes:
    """The package's tarball, from the folder or the registry (urllib: the usual proxy variables hold), verified."""
    if folder is not None:
        try:
            data = (folder / package.file).read_bytes()
        except OSError as error:
            raise BuildError(
                f"{folder / package.file}: {error.strerror}; 'npm pack {package}' fetches it"
            ) from None
    else:
        url = f"{registry().rstrip('/')}/{package.path}"
        try:
            with urllib.request.urlopen(url, timeout=120) as answer:
                data = answer.read()
        except OSError as error:
            raise BuildError(f"{url}: {error}") from None
    if base64.b64encode(hashlib.sha512(data).digest()).decode() != package.integrity:
        raise BuildError(f"{package}: its sha512 is not the published one")
    return data


def unpack(data: bytes, label: str = "package") -> dict[str, bytes]:
    """The regular files of a tarball, in memory. Raises BuildError for a link, a device or a name that leads out."""
    files: dict[str, bytes] = {}
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as tar:
        for member in tar:
            parts = member.name.split("/")
            if member.name.startswith("/") or ".." in parts:
                raise BuildError(f"{label}: member {member.name} leads out of the archive")
            if member.isdir():
                continue
            if not member.isreg() or member.size > MAX_MEMBER:
                raise BuildError(f"{label}: member {member.name} is no file of a sensible size")
            content = tar.extractfile(member)
            assert content is not None
            files["/".join(parts[1:])] = content.read()
    return files
