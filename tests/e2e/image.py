"""The steps of a Dockerfile, taken without Docker: in a root of their own, laid over the host's.

Needs Linux and root, for mount namespaces, overlayfs and chroot. What the base image would bring,
Python first of all, is the host's.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

PYTHON = (Path(sys.base_prefix) / "bin" / f"python3.{sys.version_info.minor}").resolve()
BASE_PATH = f"{PYTHON.parent}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
BUILDING = f"PATH={BASE_PATH} HOME=/root PIP_NO_INDEX=1 PIP_FIND_LINKS=/wheelhouse"
"""The environment of RUN."""
ROOT_OF_LAYERS = """
set -eu
mount -t tmpfs -o size=2g,mode=755 none {layers}
"""
NEW_STAGE = """
mkdir -p {layers}/{stage}/upper {layers}/{stage}/work {layers}/{stage}/root
mount -t overlay -o lowerdir=/,upperdir={layers}/{stage}/upper,workdir={layers}/{stage}/work \
    none {root}
mount --rbind /dev {root}/dev
mkdir -p {root}/wheelhouse
mount --bind {wheelhouse} {root}/wheelhouse
ln -sf {python} {root}{python.parent}/python
chmod go+rx {opened}
"""
READ_ONLY = """
mount -t tmpfs -o mode=1777 none {root}/tmp
{volumes}
mount -t proc none {root}/proc
mount -o remount,ro,bind {root}
"""
A_VOLUME = """
mkdir -p {data}
chown --reference={root}{volume} {data}
chmod --reference={root}{volume} {data}
mount --bind {data} {root}{volume}
"""


class Step(NamedTuple):
    """One instruction of a Dockerfile."""

    name: str
    text: str

    @property
    def words(self) -> list[str]:
        """Its arguments, in exec form or in words."""
        found = re.search(r"\[.*\]$", self.text)
        if found is None:
            return self.text.split()
        return [str(word) for word in json.loads(found[0])]


def steps(dockerfile: Path) -> Iterator[Step]:
    """The instructions, each in one line, without comments."""
    text = re.sub(r"^\s*#.*\n", "", dockerfile.read_text(), flags=re.M)
    for line in re.sub(r"\\\n\s*", " ", text).splitlines():
        if line.strip():
            yield Step(*line.strip().split(" ", 1))


def context(project: Path, folder: Path) -> Path:
    """What Docker would be handed of the project: what .dockerignore names behind `!`."""
    hides, *shows = (project / ".dockerignore").read_text().split()
    assert hides == "*"
    for name in (pattern[1:] for pattern in shows if pattern.startswith("!")):
        if (project / name).is_dir():
            unwanted = shutil.ignore_patterns("__pycache__", "*.egg-info")
            shutil.copytree(project / name, folder / name, ignore=unwanted)
        else:
            shutil.copy(project / name, folder / name)
    return folder


def environment(of: list[Step]) -> dict[str, str]:
    """What the last stage sets, as `docker run` would have it."""
    variables = {"PATH": BASE_PATH, "HOME": "/"}
    for step in of:
        if step.name == "FROM":
            variables = {"PATH": BASE_PATH, "HOME": "/"}
        elif step.name == "ENV":
            for pair in shlex.split(step.text):
                name, _, value = pair.partition("=")
                variables[name] = value.replace(f"${name}", variables.get(name, ""))
    return variables


def script(
    of: list[Step], handed: Path, layers: Path, wheelhouse: Path, data: Path,
    variables: Mapping[str, str],
) -> str:  # fmt: skip
    """A script for `unshare --mount --pid --fork sh -c`: builds, and becomes the container.

    `data` is where the volumes are. The root is read-only, apart from them and /tmp.
    """
    lines = [ROOT_OF_LAYERS.format(layers=layers)]
    stages: dict[str, str] = {}
    root, workdir, user, volumes = "", "/", "0", list[str]()
    for step in of:
        match step.name:
            case "FROM":
                stage = str(len(stages))
                stages[step.words[2] if len(step.words) > 2 else stage] = stage
                root, workdir = f"{layers}/{stage}/root", "/"
                opened = " ".join(f"{root}{folder}" for folder in PYTHON.parents)
                lines.append(
                    NEW_STAGE.format(
                        layers=layers, stage=stage, root=root, wheelhouse=wheelhouse,
                        python=PYTHON, opened=opened,
                    )
                )  # fmt: skip
            case "WORKDIR":
                workdir = step.text
                lines.append(f"mkdir -p {root}{workdir}")
            case "COPY":
                lines.append(_copy(step, stages, handed, layers, root, workdir))
            case "RUN":
                command = shlex.quote(f"cd {workdir} && {step.text}")
                lines.append(f"chroot {root} env -i {BUILDING} /bin/sh -c {command} >&2")
            case "USER":
                user = step.text
            case "VOLUME":
                volumes += [A_VOLUME.format(root=root, volume=v, data=data) for v in step.words]
    lines.append(READ_ONLY.format(root=root, volumes="".join(volumes)))
    lines.append(f"exec {shlex.join(inside(root, user, workdir, variables))} {entry(of)}")
    return "\n".join(lines)


def inside(root: str, user: str, workdir: str, variables: Mapping[str, str]) -> list[str]:
    """What comes before a command that is to run in the container."""
    given = [f"{name}={value}" for name, value in variables.items()]
    become = ["chroot", f"--userspec={user}:{user}", "--groups=", root]
    return [*become, "env", "-i", f"--chdir={workdir}", *given]


def entry(of: list[Step]) -> str:
    """ENTRYPOINT and CMD."""
    return shlex.join(last(of, "ENTRYPOINT").words + last(of, "CMD").words)


def last(of: list[Step], name: str) -> Step:
    """The last instruction of this name."""
    return [step for step in of if step.name == name][-1]


def _copy(
    step: Step, stages: Mapping[str, str], handed: Path, layers: Path, root: str, workdir: str
) -> str:
    origin, words = str(handed), step.words
    if words[0].startswith("--from="):
        origin = f"{layers}/{stages[words.pop(0).partition('=')[2]]}/root"
    *sources, target = words
    target = f"{root}{target if target.startswith('/') else f'{workdir}/{target}'}"
    copies = []
    for source in sources:
        path = f"{origin}/{source.lstrip('/')}"
        if Path(path).is_dir() or origin != str(handed):
            copies.append(f"mkdir -p {target} && cp -a {path}/. {target}/")
        else:
            copies.append(f"cp {path} {target}/")
    return "\n".join(copies)
