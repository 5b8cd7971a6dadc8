"""Content credentials (C2PA): a signed statement in the file of what made it, and of what it was made from.

Needs the packages of the extra ``c2pa``. Signing is on where the owner's settings name a certificate and its
key; nothing is asked of the network, so no time stamp is fetched either.
"""

from __future__ import annotations

import io
import json
import mimetypes
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from PIL import Image

from ..errors import FD2TalkError
from ..files import check_output, reason_of, replacing
from .settings import MarkSettings, settings_path
from .tags import SOFTWARE, TRAINED, FileTags, read_tags

ALGORITHM = "es256"
VALID = timedelta(days=3650)
"""Of a certificate that is made here."""
LARGEST_PEM = 1 << 20
KINDS = {"image": "picture", "audio": "sound", "video": "video"}
"""What an ingredient is called: the names of a user's files are nobody's business."""
INSTALL = "install it by: pip install 'fd2talk[c2pa]', or pip install c2pa-python cryptography"
_OFFLINE = {
    "verify": {"remote_manifest_fetch": False, "ocsp_fetch": False},
    "builder": {"thumbnail": {"enabled": False}},
}


@dataclass(frozen=True)
class CredentialSigner:
    """Signs files.

    Attributes:
        certificate: the chain as PEM, the signer's own first.
        key: its private key as PEM, on the curve P-256.
    """

    certificate: bytes
    key: bytes = field(repr=False)

    @classmethod
    def of(cls, settings: MarkSettings) -> CredentialSigner | None:
        """The signer that the owner's settings name; None where they name none.

        Raises:
            FD2TalkError: when certificate or key cannot be used, or ``c2pa-python`` is not installed.
        """
        if not settings.c2pa_certificate and not settings.c2pa_key:
            return None
        signer = cls(_pem(settings.c2pa_certificate), _pem(settings.c2pa_key))
        signer._try()
        return signer

    def _try(self) -> None:
        """Sign a picture of one pixel, so that a certificate that cannot sign is not found after the work."""
        c2pa = _library()
        picture = io.BytesIO()
        Image.new("L", (1, 1)).save(picture, "PNG")
        picture.seek(0)
        try:
            self._builder("").sign(self._opened(), "image/png", picture, io.BytesIO())
        except c2pa.C2paError as error:
            raise FD2TalkError(
                f"The marks' settings name a C2PA certificate and key that cannot sign ({error}); a chain "
                "for content credentials and its P-256 key are needed, as PEM."
            ) from error

    def _opened(self) -> Any:
        c2pa = _library()
        info = c2pa.C2paSignerInfo(ALGORITHM.encode(), self.certificate, self.key, None)
        return c2pa.Signer.from_info(info)

    def _builder(self, title: str, version: str = "") -> Any:
        """A statement that something was made by a trained model, to be signed."""
        c2pa = _library()
        action = {"action": "c2pa.created", "digitalSourceType": TRAINED}
        statement = {
            "claim_generator_info": [{"name": SOFTWARE, "version": version}],
            "title": title,
            "assertions": [{"label": "c2pa.actions.v2", "data": {"actions": [action]}}],
        }
        return c2pa.Builder(statement, c2pa.Context(settings=c2pa.Settings.from_dict(_OFFLINE)))

    def sign(self, path: Path, tags: FileTags, inputs: Iterable[Path | str] = ()) -> None:
        """Sign an MP4 in its place. Files that it was made from become its ingredients, with the content
        credentials that they bear.

        Raises:
            FD2TalkError: when it cannot be signed.
        """
        c2pa = _library()
        known = set(c2pa.Builder.get_supported_mime_types())
        try:
            builder = self._builder(f"FD2Talk {tags.identifier}", tags.version)
            for given in inputs:
                kind = mimetypes.guess_type(str(given))[0] or ""
                if kind in known:
                    told = {"title": KINDS[kind.partition("/")[0]], "relationship": "inputTo"}
                    with open(given, "rb") as file:
                        builder.add_ingredient(told, kind, file)
            with replacing(path) as signed, open(path, "rb") as source, open(signed, "w+b") as target:
                builder.sign(self._opened(), "video/mp4", source, target)
        except c2pa.C2paError as error:
            raise FD2TalkError(f"The video cannot be signed with content credentials ({error}).") from error


def sign_file(path: Path) -> str:
    """Sign an MP4 of this pack that another program has copied, as hosts do when they save a video: the tags
    stay then, but a signature does not.

    Returns:
        the clip's id.

    Raises:
        FD2TalkError: when the file's tags do not say that this pack made it, the owner's settings name no
            certificate, or it cannot be signed.
    """
    path = check_output(path, (".mp4",))
    signer = CredentialSigner.of(MarkSettings.read())
    if signer is None:
        raise FD2TalkError(f"The marks' settings {settings_path()} name no certificate to sign with.")
    identifier = read_tags(path).get("fd2talk_id")
    if not identifier:
        raise FD2TalkError(f"The tags of {path.name} do not say that FD2Talk made it, so it is not signed.")
    signer.sign(path, FileTags.now(identifier))
    return identifier


def read_credentials(path: Path | str) -> list[str]:
    """What the content credentials of a file say, in lines; none where it has none, or ``c2pa-python`` is not
    installed.
    """
    try:
        c2pa = _library()
    except FD2TalkError:
        return []
    kind = mimetypes.guess_type(str(path))[0] or ""
    if kind not in c2pa.Reader.get_supported_mime_types():
        return []
    context = c2pa.Context(settings=c2pa.Settings.from_dict(_OFFLINE))
    try:
        with open(path, "rb") as file, c2pa.Reader(kind, file, context=context) as reader:
            told, state = json.loads(reader.json()), str(reader.get_validation_state())
    except c2pa.C2paError.ManifestNotFound:
        return []
    except c2pa.C2paError as error:
        return [f"cannot be read ({error})"]
    manifest = told["manifests"][told["active_manifest"]]
    validation = told.get("validation_results", {}).get("activeManifest", {})
    failures = [failure["code"] for failure in validation.get("failure", [])]
    maker = (manifest.get("claim_generator_info") or [{}])[0]
    program = f"{maker.get('name', 'unknown')} {maker.get('version', '')}".strip()
    lines = [
        f"made by {program}, titled {manifest.get('title', '')!r}",
        f"signed by {manifest.get('signature_info', {}).get('issuer', 'unknown')}, {state}"
        + (f" ({', '.join(failures)})" if failures else ""),
    ]
    for part in manifest.get("ingredients", []):
        own = ", with content credentials of its own" if part.get("active_manifest") else ""
        lines.append(f"made from: {part.get('title', 'untitled')}{own}")
    return lines


def make_certificate() -> Path:
    """Make a certificate and a key for this machine beside the owner's settings, and name them there. Others
    see by it that two files have one signer, and that neither was changed, but not who that is.

    Returns:
        the certificate's file.

    Raises:
        FD2TalkError: when the settings name one already, or it cannot be made or written.
    """
    settings, path = MarkSettings.read(), settings_path()
    if settings.c2pa_certificate or settings.c2pa_key:
        raise FD2TalkError(f"The marks' settings {path} name a certificate already.")
    certificate, key = (path.with_name(name) for name in ("c2pa_certificate.pem", "c2pa_key.pem"))
    chain, private = _self_made()
    named = {"c2pa_certificate": str(certificate), "c2pa_key": str(key)}
    try:
        kept = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(os.open(key, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(private)
        with replacing(certificate) as partial:
            partial.write_bytes(chain)
        with replacing(path) as partial:
            partial.write_text(json.dumps({**kept, **named}, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise FD2TalkError(
            f"The certificate cannot be written to {path.parent} ({reason_of(error)})."
        ) from error
    return certificate


def _self_made() -> tuple[bytes, bytes]:
    """A certificate chain of two, which C2PA asks for, and the signer's key, as PEM."""
    try:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
    except ImportError as error:
        raise FD2TalkError(f"A certificate needs the package cryptography; {INSTALL}.") from error
    now = datetime.now(timezone.utc)
    root_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))

    def named(role: str) -> x509.Name:
        told = ((x509.NameOID.ORGANIZATION_NAME, f"{SOFTWARE}, self-made"), (x509.NameOID.COMMON_NAME, role))
        return x509.Name([x509.NameAttribute(*pair) for pair in told])

    def issued(role: str, public: ec.EllipticCurvePublicKey, *, root: bool) -> bytes:
        usage = dict.fromkeys(
            "digital_signature content_commitment key_encipherment data_encipherment key_agreement "
            "key_cert_sign crl_sign encipher_only decipher_only".split(),
            False,
        )
        usage |= {"key_cert_sign": True, "crl_sign": True} if root else {"digital_signature": True}
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(root_key.public_key())
        made = (
            x509.CertificateBuilder()
            .subject_name(named(role))
            .issuer_name(named("root"))
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(minutes=5))
            .not_valid_after(now + VALID)
            .add_extension(x509.BasicConstraints(ca=root, path_length=None), critical=True)
            .add_extension(x509.KeyUsage(**usage), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(issuer, critical=False)
        )
        if not root:
            # the purpose that C2PA takes of certificates that were made for no other
            purpose = x509.ExtendedKeyUsage([x509.ExtendedKeyUsageOID.EMAIL_PROTECTION])
            made = made.add_extension(purpose, critical=False)
        return made.sign(root_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    chain = issued("signer", key.public_key(), root=False) + issued("root", root_key.public_key(), root=True)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return chain, private


def _library() -> Any:
    try:
        import c2pa
    except ImportError as error:
        raise FD2TalkError(f"Content credentials need the package c2pa-python; {INSTALL}.") from error
    return c2pa


def _pem(path: str) -> bytes:
    if not path:
        raise FD2TalkError("The marks' settings need both c2pa_certificate and c2pa_key, or neither.")
    try:
        with open(path, "rb") as file:
            return file.read(LARGEST_PEM)
    except (OSError, ValueError) as error:
        raise FD2TalkError(f"The marks' settings name {path!r}, which cannot be read ({error}).") from error
