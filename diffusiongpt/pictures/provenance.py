"""Marks pictures as made by a model, in the two ways in which other programs look for that.

IPTC's *digital source type* in the XMP metadata of every file says it in one word; anyone can read it, change it, or
take it off. *Content Credentials* (C2PA) say it signed with the user's own key, with the pictures that went in as
ingredients; they are added to the bytes of a file last, since any change of the file after that breaks the signature.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from diffusiongpt.errors import NeedsExtraError, PictureError, SettingsError
from diffusiongpt.files import read_regular
from diffusiongpt.flow import PictureRecord, Signing
from diffusiongpt.safe_text import words_of
from diffusiongpt.version import GENERATOR

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from diffusiongpt.flow import InputImage
    from diffusiongpt.settings import Settings

CREATED: Final = "trainedAlgorithmicMedia"
"""Made by a model alone; a term of https://cv.iptc.org/newscodes/digitalsourcetype/."""

EDITED: Final = "compositeWithTrainedAlgorithmicMedia"
"""A picture that went in, changed by a model; a term of the same list."""

XMP_CHUNK: Final = "XML:com.adobe.xmp"
"""Text chunk of a PNG that holds XMP (XMP specification, part 3)."""

_TERMS = "http://cv.iptc.org/newscodes/digitalsourcetype/"
_XMP = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about=""
    xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
    xmlns:xmp="http://ns.adobe.com/xap/1.0/"
    Iptc4xmpExt:DigitalSourceType="{source}"
    xmp:CreatorTool="{tool}"/>
 </rdf:RDF>
</x:xmpmeta>
<?xpacket end="w"?>"""

_MOST_PEM = 1 << 20
_ALGORITHMS = {"secp256r1": "es256", "secp384r1": "es384", "secp521r1": "es512"}
_KEYS = "es256, es384, es512 (elliptic curves of NIST), ed25519 or ps256 (RSA)"
# nothing is fetched while signing or reading, and a certificate without an authority that readers know may sign
_OFFLINE = {"verify": {"remote_manifest_fetch": False, "ocsp_fetch": False, "verify_trust": False}}


@dataclass(frozen=True)
class Provenance:
    """What a studio says of the pictures it draws.

    Attributes:
        marked: Whether files say that a model made them.
        signing: The key that they are signed with; `None` for none.
    """

    marked: bool = True
    signing: Signing | None = None

    @classmethod
    def of(cls, settings: Settings) -> Provenance:
        """What the settings ask for.

        Raises:
            SettingsError: If a key or its certificate is missing or cannot be used.
            NeedsExtraError: If pictures are to be signed and the package for that is missing.
        """
        certificate, key = settings.c2pa_certificate, settings.c2pa_key
        if certificate is None and key is None:
            return cls(settings.mark_pictures)
        if certificate is None or key is None:
            raise SettingsError(
                "pictures are to be signed, and only one of key and certificate is set",
                hint="Set both DIFFUSIONGPT_C2PA_CERTIFICATE and DIFFUSIONGPT_C2PA_KEY, or neither.",
            )
        signing = Signing(certificate, key)
        _try(signing)
        return cls(settings.mark_pictures, signing)

    def on(self, record: PictureRecord, inputs: Sequence[InputImage]) -> PictureRecord:
        """The record of a picture that is saved with this provenance."""
        signing = self.signing and replace(self.signing, ingredients=tuple(inputs))
        return record.model_copy(update={"marked": self.marked}).signed_with(signing)


def xmp(record: PictureRecord) -> bytes:
    """The XMP metadata of a picture; empty if it is not to say how it was made."""
    if not record.marked:
        return b""
    return _XMP.format(source=f"{_TERMS}{_source(record)}", tool=GENERATOR).encode()


def signed(data: bytes, mime: str, record: PictureRecord) -> bytes:
    """The bytes of a picture file with Content Credentials, if it is to have them; otherwise as they are.

    Args:
        data: The file, complete: nothing may change in it afterwards.
        mime: `image/png`, `image/jpeg` or `image/webp`.
        record: How it was drawn.

    Raises:
        PictureError: If it cannot be signed, so that no unsigned picture leaves in its place.
        SettingsError: If the key or its certificate cannot be used any more.
    """
    if record.signing is None:
        return data
    import c2pa

    manifest, ingredients = _manifest(record, mime), record.signing.ingredients
    try:
        return _sign(data, mime, record.signing, manifest, lambda one: _describe(one, record, ingredients))
    except c2pa.C2paError as error:
        raise PictureError(
            f"the picture could not be signed: {words_of(error)}",
            hint="Check the key and the certificate, or unset DIFFUSIONGPT_C2PA_CERTIFICATE and DIFFUSIONGPT_C2PA_KEY.",
        ) from error


def _sign(data: bytes, mime: str, signing: Signing, manifest: dict[str, Any], describe: Callable[[Any], None]) -> bytes:
    """The bytes of a file with a manifest."""
    import c2pa

    target = BytesIO()
    with c2pa.Context(c2pa.Settings.from_dict(_OFFLINE)) as context, _signer(signing) as signer:
        builder = c2pa.Builder(manifest, context)
        describe(builder)
        builder.sign(signer, mime, BytesIO(data), target)
    return target.getvalue()


def _try(signing: Signing) -> None:
    """Sign a picture that is thrown away: only then it is known whether key and certificate belong together.

    Raises:
        SettingsError: If it cannot be signed.
        NeedsExtraError: If the package for that is missing.
    """
    from PIL import Image

    file = BytesIO()
    Image.new("RGB", (8, 8)).save(file, format="PNG")
    _signer(signing).close()
    import c2pa

    try:
        _sign(file.getvalue(), "image/png", signing, {"title": "trial"}, _create)
    except c2pa.C2paError as error:
        raise _unfit(signing, error) from error


def _source(record: PictureRecord) -> str:
    return CREATED if record.task == "text-to-image" else EDITED


def _manifest(record: PictureRecord, mime: str) -> dict[str, Any]:
    name, _, version = GENERATOR.partition(" ")
    return {
        "claim_generator_info": [{"name": name, "version": version or "0"}],
        "title": f"{record.drawn_by}-{record.seed}.{mime.removeprefix('image/')}",
    }


def _create(builder: Any) -> None:
    """Say that a picture was made by a model alone."""
    import c2pa

    builder.set_intent(c2pa.C2paBuilderIntent.CREATE, c2pa.C2paDigitalSourceType.TRAINED_ALGORITHMIC_MEDIA)


def _describe(builder: Any, record: PictureRecord, ingredients: Sequence[InputImage]) -> None:
    """Say that a picture was created, or which one was edited."""
    import c2pa

    if record.task == "text-to-image" or not ingredients:
        _create(builder)
        return
    builder.set_intent(c2pa.C2paBuilderIntent.EDIT)
    for index, one in enumerate(ingredients):
        file = BytesIO()
        one.image.save(file, format="PNG")
        file.seek(0)
        relation = "inputTo" if index else "parentOf"
        title = one.name or f"{one.sha256[:12]}.png"
        builder.add_ingredient({"title": title, "relationship": relation}, "image/png", file)
    builder.add_action({"action": "c2pa.edited", "digitalSourceType": f"{_TERMS}{EDITED}"})


def _signer(signing: Signing) -> Any:
    """A signer with the key.

    Raises:
        SettingsError: If the key or its certificate cannot be used.
        NeedsExtraError: If the package for that is missing.
    """
    try:
        import c2pa
    except ModuleNotFoundError as error:
        raise NeedsExtraError(
            f"signing pictures needs the package {error.name}", hint='pip install "diffusiongpt[c2pa]"'
        ) from error
    certificate, key = _pem(signing.certificate), _pem(signing.key)
    try:
        return c2pa.Signer.from_info(c2pa.C2paSignerInfo(_algorithm(key), certificate, key, None))
    except c2pa.C2paError as error:
        raise _unfit(signing, error) from error


def _unfit(signing: Signing, error: Exception) -> SettingsError:
    return SettingsError(
        f"pictures cannot be signed with {signing.certificate.name}: {words_of(error)}",
        hint="C2PA wants the certificate of the signer first, then those above it, and the key that belongs to it.",
    )


def _pem(path: Path) -> bytes:
    try:
        return read_regular(path, _MOST_PEM)
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}", hint="Check the path.") from error


def _algorithm(key: bytes) -> str:
    """The signature algorithm of a private key, as C2PA names it."""
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        private = load_pem_private_key(key, password=None)
    except (ValueError, TypeError) as error:
        raise SettingsError(
            f"the key that signs pictures cannot be read: {words_of(error)}", hint="Pass a PEM file without a password."
        ) from error
    if isinstance(private, EllipticCurvePrivateKey) and private.curve.name in _ALGORITHMS:
        return _ALGORITHMS[private.curve.name]
    if isinstance(private, Ed25519PrivateKey):
        return "ed25519"
    if isinstance(private, RSAPrivateKey):
        return "ps256"
    raise SettingsError("the key that signs pictures is of a kind that C2PA does not know", hint=f"Use {_KEYS}.")
