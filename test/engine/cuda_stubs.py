"""Lets PyPI's CUDA build of torch import without a GPU and without 2.2 GB of nvidia-* packages.

Run with the interpreter of the environment after ``pip install --no-deps torch``
and ``nvidia-cuda-runtime`` (2 MB, which truly reports that there is no device). For
every other CUDA library that torch's own libraries name as NEEDED it writes a
small one into torch/lib: the same SONAME, the same version nodes, and the symbols
that torch refers to, each of which returns 999. Nothing calls them while there is
no GPU; never use such an environment on a machine that has one.

Two traps: without version nodes the dynamic loader aborts; and unversioned symbols
must be in a library that names them directly. Needs gcc, nm and readelf.
"""

from __future__ import annotations

import re
import subprocess
import sys
import sysconfig
import tempfile
from collections import defaultdict
from pathlib import Path

REAL = {"libcudart.so.13", "libcudart.so.12", "libcuda.so.1"}
ON_DEMAND = {"libcaffe2_nvrtc.so"}  # opened by the GPU's just-in-time compiler only


def output(*command: str) -> list[str]:
    """The lines that a command prints."""
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


class Wanted:
    """What torch's libraries want of the CUDA libraries."""

    def __init__(self, libraries: list[Path]) -> None:
        own = {path.name for path in libraries} | REAL
        self.needed: set[str] = set()
        self.library_of: dict[str, str] = {}  # by version node
        self._symbols: dict[str, str] = {}  # undefined symbol: version node, or ""
        self._defined: set[str] = set()
        for path in libraries:
            dynamic = "\n".join(output("readelf", "-dW", str(path)))
            self.needed |= set(re.findall(r"\(NEEDED\).*\[(lib(?:cu|nccl|nv).*?)\]", dynamic)) - own
            self._read_versions(path)
            self._read_symbols(path)

    def _read_versions(self, path: Path) -> None:
        library = ""
        for line in output("readelf", "-VW", str(path)):
            if found := re.search(r"Version: \d+\s+File: (\S+)\s+Cnt", line):
                library = found.group(1)
            elif library and (found := re.search(r"Name: (\S+)\s+Flags", line)):
                self.library_of.setdefault(found.group(1), library)

    def _read_symbols(self, path: Path) -> None:
        for line in output("nm", "-D", str(path)):
            words = line.split()
            name, _, node = words[-1].partition("@")
            if words[:-1] == ["U"]:
                self._symbols.setdefault(name, node.lstrip("@"))
            elif len(words) == 3:
                self._defined.add(name)

    def stubs(self) -> dict[str, dict[str, list[str]]]:
        """Symbols by library and version node; unversioned ones are in every library without nodes."""
        stubs: dict[str, dict[str, list[str]]] = {name: defaultdict(list) for name in sorted(self.needed)}
        plain = sorted(self.needed - set(self.library_of.values())) or sorted(self.needed)
        for symbol, node in self._symbols.items():
            if symbol in self._defined:
                continue
            if node and self.library_of.get(node) in stubs:
                stubs[self.library_of[node]][node].append(symbol)
            elif not node and re.match(r"cu[A-Zdfspbr]|p?nccl|nvshmem|nvrtc", symbol):
                for name in plain:
                    stubs[name][""].append(symbol)
        return stubs


def write(library: Path, nodes: dict[str, list[str]]) -> None:
    """Compiles one stub library."""
    with tempfile.TemporaryDirectory() as work:
        source, versions = Path(work, "stub.c"), Path(work, "stub.map")
        functions = [f"int {symbol}(void) {{ return 999; }}" for symbols in nodes.values() for symbol in symbols]
        source.write_text("\n".join([*functions, "int larder_stub_marker;\n"]))
        command = ["gcc", "-shared", "-fPIC", "-O1", "-nostdlib", f"-Wl,-soname,{library.name}"]
        if any(nodes):
            entries = [f"{node} {{ global: {'; '.join(sorted(nodes[node]))}; }};" for node in nodes if node]
            versions.write_text("\n".join(entries) + "\n")
            command.append(f"-Wl,--version-script={versions}")
        subprocess.run([*command, "-o", str(library), str(source)], check=True)


def main() -> None:
    """Writes the stubs into this interpreter's torch."""
    folder = Path(sysconfig.get_paths()["purelib"], "torch", "lib")
    stubs = Wanted(sorted(path for path in folder.glob("*.so*") if path.name not in ON_DEMAND)).stubs()
    for name, nodes in stubs.items():
        write(folder / name, nodes)
    sys.stdout.write(f"{len(stubs)} stub libraries for CUDA\n")


if __name__ == "__main__":
    main()
