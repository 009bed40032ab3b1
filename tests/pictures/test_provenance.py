"""That a model made a picture: IPTC's word in the metadata of files, and Content Credentials that a reader verifies."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from io import BytesIO
from typing import TYPE_CHECKING, Any

import c2pa
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from PIL import Image

from diffusiongpt import DiffusionGPT, Generation, SettingsError
from diffusiongpt.pictures import Provenance, encode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from diffusiongpt.settings import Settings

FEW = {"num_inference_steps": 1, "seed": 7}
FORMATS = ("png", "jpeg", "webp")
KEYS: dict[str, Callable[[], Any]] = {
    "es256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "ed25519": ed25519.Ed25519PrivateKey.generate,
    "ps256": lambda: rsa.generate_private_key(65537, 2048),
}


def certify(subject: str, key: Any, issuer: str, by: Any, *, authority: bool) -> x509.Certificate:
    """A certificate as C2PA wants them: of version 3, for signing, and by an authority."""
    name, parent = (x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, one)]) for one in (subject, issuer))
    now = datetime.now(UTC)
    usage = dict.fromkeys(
        (
            "content_commitment",
            "key_encipherment",
            "data_encipherment",
            "key_agreement",
            "encipher_only",
            "decipher_only",
        ),
        False,
    )
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(parent)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=30))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .add_extension(
            x509.KeyUsage(digital_signature=not authority, key_cert_sign=authority, crl_sign=authority, **usage),
            critical=True,
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(by.public_key()), critical=False)
    )
    if not authority:
        builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False)
    return builder.sign(by, None if isinstance(by, ed25519.Ed25519PrivateKey) else hashes.SHA256())


@pytest.fixture(params=["es256"])
def signing(request: pytest.FixtureRequest, settings: Settings, tmp_path: Path) -> Settings:
    """Settings with a key of the user, certified by an authority of their own."""
    key, root = KEYS[request.param](), ec.generate_private_key(ec.SECP256R1())
    chain = [certify("me", key, "root", root, authority=False), certify("root", root, "root", root, authority=True)]
    certificate, private = tmp_path / "me.pem", tmp_path / "me.key"
    certificate.write_bytes(b"".join(one.public_bytes(serialization.Encoding.PEM) for one in chain))
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return settings.model_copy(update={"c2pa_certificate": certificate, "c2pa_key": private})


@pytest.fixture
def open_studio() -> Iterator[Callable[[Settings], DiffusionGPT]]:
    """Opens studios with the tiny zoo."""
    opened: list[DiffusionGPT] = []

    def make(settings: Settings) -> DiffusionGPT:
        opened.append(DiffusionGPT("tiny", device="cpu", settings=settings))
        return opened[-1]

    yield make
    for studio in opened:
        studio.close()


def source_in(data: bytes) -> str | None:
    """IPTC's digital source type in the XMP of a file, as Pillow finds XMP."""
    with Image.open(BytesIO(data)) as image:
        text = image.info.get("XML:com.adobe.xmp") or image.info.get("xmp") or b""
    found = re.search(r'Iptc4xmpExt:DigitalSourceType="([^"]+)"', text if isinstance(text, str) else text.decode())
    return found[1].rpartition("/")[2] if found else None


def read_credentials(data: bytes, file_format: str) -> tuple[str | None, dict[str, Any]]:
    """What the library's own reader finds: whether the credentials hold, and the manifest."""
    with c2pa.Reader(f"image/{file_format}", BytesIO(data)) as reader:
        store = json.loads(reader.json())
        return reader.get_validation_state(), store["manifests"][store["active_manifest"]]


def actions_of(manifest: dict[str, Any]) -> dict[str, str]:
    """Actions of a manifest -> their digital source type."""
    found = [one for one in manifest["assertions"] if one["label"].startswith("c2pa.actions")]
    return {
        act["action"]: act.get("digitalSourceType", "").rpartition("/")[2]
        for one in found
        for act in one["data"]["actions"]
    }


def test_every_file_says_that_a_model_made_it(
    open_studio: Callable[[Settings], DiffusionGPT], settings: Settings, tmp_path: Path
) -> None:
    """The mark is in each format by default; a setting takes it off, and the record says which."""
    studio = open_studio(settings)
    drawn = studio.route_and_generate("a red heart", **FEW)
    edited = studio.route_and_generate("a blue star", image=drawn, strength=0.7, **FEW)
    [path] = drawn.save(tmp_path / "heart.png")
    assert source_in(path.read_bytes()) == "trainedAlgorithmicMedia"
    for file_format in FORMATS:
        assert source_in(encode(drawn.image, drawn.records[0], file_format)) == "trainedAlgorithmicMedia"
        marked = encode(edited.image, edited.records[0], file_format)
        assert source_in(marked) == "compositeWithTrainedAlgorithmicMedia"
        (tmp_path / f"star.{file_format}").write_bytes(marked)
        assert Generation.without_pixels(tmp_path / f"star.{file_format}").records[0].marked
    assert not drawn.records[0].signed
    bare = open_studio(settings.model_copy(update={"mark_pictures": False})).redraw(drawn)
    assert not bare.records[0].marked
    assert [source_in(encode(bare.image, bare.records[0], one)) for one in FORMATS] == [None] * 3


def test_credentials_are_verified_by_the_reader(
    open_studio: Callable[[Settings], DiffusionGPT], signing: Settings, tmp_path: Path
) -> None:
    """A signed picture is created by a model, an edit has its ingredient, in each format; the record stays readable."""
    studio = open_studio(signing)
    drawn = studio.route_and_generate("a red heart", **FEW)
    edited = studio.route_and_generate("a blue star", image=drawn, strength=0.7, **FEW)
    [path] = drawn.save(tmp_path / "heart.png")
    assert Generation.from_file(path).records[0].signed
    state, manifest = read_credentials(path.read_bytes(), "png")
    assert state in ("Valid", "Trusted")
    assert actions_of(manifest) == {"c2pa.created": "trainedAlgorithmicMedia"}
    assert manifest["claim_generator_info"][0]["name"] == "diffusiongpt"
    for file_format in FORMATS:
        data = encode(edited.image, edited.records[0], file_format)
        state, manifest = read_credentials(data, file_format)
        assert state in ("Valid", "Trusted")
        assert actions_of(manifest)["c2pa.edited"] == "compositeWithTrainedAlgorithmicMedia"
        assert [one["relationship"] for one in manifest["ingredients"]] == ["parentOf"]
        assert source_in(data) == "compositeWithTrainedAlgorithmicMedia"
        (tmp_path / f"star.{file_format}").write_bytes(data)
        assert Generation.without_pixels(tmp_path / f"star.{file_format}").drawn_by == edited.drawn_by


def test_a_change_breaks_the_credentials_and_another_save_has_none(
    open_studio: Callable[[Settings], DiffusionGPT], signing: Settings, settings: Settings, tmp_path: Path
) -> None:
    """Signing is the last step: a byte that changes is seen, and a picture that is saved again has no signature."""
    drawn = open_studio(signing).route_and_generate("a red heart", **FEW)
    [path] = drawn.save(tmp_path / "heart.png")
    data = bytearray(path.read_bytes())
    at = data.index(b"IDAT") + 12
    data[at] ^= 1
    assert read_credentials(bytes(data), "png")[0] == "Invalid"
    [copy] = Generation.from_file(path).save(tmp_path / "copy.png")
    assert not Generation.from_file(copy).records[0].signed
    with pytest.raises(c2pa.C2paError):
        c2pa.Reader("image/png", BytesIO(copy.read_bytes()))
    again = open_studio(settings).redraw(drawn)
    assert again.records[0].signing is None


@pytest.mark.parametrize("signing", KEYS, indirect=True)
def test_kinds_of_keys(signing: Settings) -> None:
    """Elliptic curves, Ed25519 and RSA sign; which it is, is read from the key."""
    assert Provenance.of(signing).signing is not None


def test_a_key_that_cannot_sign_is_refused_at_once(signing: Settings, tmp_path: Path) -> None:
    """A studio that could not sign does not open: no unsigned picture leaves in place of a signed one."""
    damaged = tmp_path / "damaged.key"
    damaged.write_text("not a key")
    for changes, message in (
        ({"c2pa_key": None}, "only one"),
        ({"c2pa_key": tmp_path / "missing.key"}, "cannot be read"),
        ({"c2pa_key": damaged}, "cannot be read"),
        ({"c2pa_certificate": damaged}, "cannot be signed"),
    ):
        with pytest.raises(SettingsError, match=message) as caught:
            DiffusionGPT("tiny", device="cpu", settings=signing.model_copy(update=changes))
        assert caught.value.hint
