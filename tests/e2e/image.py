"""Images of one static binary each, and how they get to the nodes."""

import hashlib
import io
import json
import os
import pathlib
import subprocess
import sys
import tarfile
import tempfile

# What kind's users need. $IMAGE is the image's name, $ARCHIVE a file as docker save writes it.
LOAD = 'docker load --quiet --input "$ARCHIVE" && kind load docker-image "$IMAGE"'


def load_program(name, program, more=()):
    """The image of a program of this machine, with the libraries that it needs and more files (each with its place); the
    program is its entrypoint."""
    said = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    libraries = [word for word in said.split() if word.startswith("/")]
    with tempfile.TemporaryDirectory() as folder:
        return load(name, program, folder, [*((os.path.realpath(path), path.lstrip("/")) for path in libraries), *more])


def load(name, binary, folder, more=()):
    """Packs a binary and more files, has it loaded, and returns the image's name. The tag tells one build from the next."""
    binary = pathlib.Path(binary)
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        for path, destination in [(binary, name), *more]:
            entry = tar.gettarinfo(path, arcname=destination)
            entry.mode, entry.mtime, entry.uid, entry.gid, entry.uname, entry.gname = 0o755, 0, 0, 0, "", ""
            with open(path, "rb") as file:
                tar.addfile(entry, file)
    layer = layer.getvalue()
    digest = hashlib.sha256(layer).hexdigest()
    image = f"localhost/e2e-{name}:{digest[:12]}"
    config = {
        "architecture": architecture(binary),
        "os": "linux",
        "config": {"Entrypoint": [f"/{name}"], "User": "65532:65532"},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
        "history": [{}],
    }
    manifest = [{"Config": "config.json", "RepoTags": [image], "Layers": ["layer.tar"]}]
    archive = pathlib.Path(folder) / f"{name}.tar"
    with tarfile.open(archive, "w") as tar:
        for path, content in {
            "manifest.json": json.dumps(manifest).encode(),
            "config.json": json.dumps(config).encode(),
            "layer.tar": layer,
        }.items():
            entry = tarfile.TarInfo(path)
            entry.size, entry.mode = len(content), 0o644
            tar.addfile(entry, io.BytesIO(content))
    environment = os.environ | {"IMAGE": image, "ARCHIVE": str(archive)}
    how = os.environ.get("E2E_LOAD", LOAD)
    try:
        subprocess.run(how, shell=True, env=environment, timeout=300, stdout=subprocess.DEVNULL, check=True)
    except subprocess.SubprocessError as why:
        sys.exit(f"e2e: {image} did not get to the nodes: {why}\n"
                 "Set E2E_LOAD to the command that loads $ARCHIVE, a file as docker save writes it, as $IMAGE.")
    return image


def architecture(binary):
    """What the binary runs on, as an image's configuration names it."""
    with binary.open("rb") as file:
        machine = int.from_bytes(file.read(20)[18:], "little")
    known = {62: "amd64", 183: "arm64"}
    return known.get(machine) or sys.exit(f"e2e: {binary} is for the ELF machine {machine}; of these there are images: {known}")
