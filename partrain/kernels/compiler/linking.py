"""Links the object files of a kernel: lays out their sections, and finds what each relocation refers to.

LLVM writes ELF files whose code reaches everything by 64-bit addresses, so few kinds of relocations occur. What does
not depend on where the code will be is done here, and the rest when it is loaded (kernels.compiler.machine_code).

Sources: "System V Application Binary Interface", chapters 4 and 5; "AMD64 Architecture Processor Supplement", 4.4; "ELF
for the Arm 64-bit Architecture (AArch64)", 5.7.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from partrain.kernels.compiler.machine_code import ABSOLUTE, MOVE_WIDE, MachineCode, Relocation

# Types of sections, flags, and section numbers of symbols.
_SYMBOLS, _ADDENDS, _ZEROS = 2, 4, 8
_WRITABLE, _ALLOCATED = 1, 2
_UNDEFINED, _COMMON = 0, 0xFFF2
_WEAK = 2
# e_machine, and the types of relocations by what they write.
_X86_64, _AARCH64 = 62, 183
_ABSOLUTE = {(_X86_64, 1), (_AARCH64, 257)}
_RELATIVE = {(_X86_64, 2): "<i", (_X86_64, 4): "<i", (_X86_64, 24): "<q", (_AARCH64, 261): "<i", (_AARCH64, 260): "<q"}
# The 16 bits of an address that an instruction MOVZ or MOVK holds.
_MOVE_WIDE = {(_AARCH64, 263): 0, (_AARCH64, 264): 0, (_AARCH64, 265): 1, (_AARCH64, 266): 1, (_AARCH64, 267): 2,
              (_AARCH64, 268): 2, (_AARCH64, 269): 3}  # fmt: skip
# A jump or call, which reaches 128 MB.
_BRANCH = {(_AARCH64, 282), (_AARCH64, 283)}
# The page of a word that holds an address, and the word's place in the page; ADRP and LDR.
_PAGE_OF_WORD, _WORD_IN_PAGE = {(_AARCH64, 311)}, {(_AARCH64, 312)}
_PAGE_BITS, _IN_PAGE = 12, 0xFFF
# Jumps to the address that follows: ldr x16, #8; br x16.
_FAR_JUMP = struct.pack("<II", 0x58000050, 0xD61F0200)


class LinkError(Exception):
    """The object files have something that this linker does not know."""


class _Section(NamedTuple):
    name: str
    kind: int
    flags: int
    offset: int
    size: int
    link: int
    info: int
    alignment: int


class _Symbol(NamedTuple):
    name: str
    is_weak: bool
    is_local: bool
    section: int
    value: int
    size: int


class _ObjectFile:
    def __init__(self, content: bytes) -> None:
        if content[:6] != b"\x7fELF\x02\x01":
            raise LinkError("not a 64-bit little-endian ELF file")
        self.content = content
        self.machine, first, size, count, names = (
            *struct.unpack_from("<H", content, 18),
            *struct.unpack_from("<40xQ10xHHH", content),
        )
        headers = [struct.unpack_from("<IIQQQQIIQQ", content, first + k * size) for k in range(count)]
        self.sections = [
            _Section(self._text(headers[names][4] + name), kind, flags, offset, length, link, info, max(1, alignment))
            for name, kind, flags, _, offset, length, link, info, alignment, _ in headers
        ]
        self.symbols = list(self._symbols())

    def _text(self, start: int) -> str:
        return self.content[start : self.content.index(b"\0", start)].decode()

    def _symbols(self) -> Iterator[_Symbol]:
        for section in self.sections:
            if section.kind == _SYMBOLS:
                names = self.sections[section.link].offset
                for at in range(section.offset, section.offset + section.size, 24):
                    name, info, _, of_section, value, size = struct.unpack_from("<IBBHQQ", self.content, at)
                    binding = info >> 4
                    yield _Symbol(self._text(names + name), binding == _WEAK, binding == 0, of_section, value, size)

    def relocations(self) -> Iterator[tuple[int, int, int, _Symbol, int]]:
        """Yield the section, place in it, type, symbol and addend of each relocation."""
        for section in self.sections:
            if section.kind == _ADDENDS:
                for at in range(section.offset, section.offset + section.size, 24):
                    place, info, addend = struct.unpack_from("<QQq", self.content, at)
                    yield section.info, place, info & 0xFFFFFFFF, self.symbols[info >> 32], addend

    def is_loaded(self, number: int) -> bool:
        """Return whether a section is needed at run time; nothing here reads the tables for exceptions of C++."""
        section = self.sections[number]
        return bool(section.flags & _ALLOCATED) and not section.name.startswith(".eh_frame")


def link(files: Sequence[bytes], entry: str, kernel: str) -> MachineCode:
    """Link object files.

    Parameters
    ----------
    files : the object files.
    entry, kernel : the symbols whose places the result names.

    Raises
    ------
    LinkError
        They have something that this linker does not know.
    """
    linker = _Linker([_ObjectFile(content) for content in files])
    relocations = tuple(linker.relocations())  # this also changes the code
    return MachineCode(bytes(linker.code), relocations, linker.place_of(entry), linker.place_of(kernel))


class _Linker:
    def __init__(self, files: Sequence[_ObjectFile]) -> None:
        self._files, self.code = files, bytearray()
        self._places: dict[tuple[int, int], int] = {}
        self._symbols: dict[str, int] = {}
        self._words: dict[tuple[str | None, int, bytes], int] = {}
        for k, file in enumerate(files):
            for number, section in enumerate(file.sections):
                if file.is_loaded(number) and section.size:
                    self._add_section(k, number, section)
        for weak in (False, True):
            for k, file in enumerate(files):
                for symbol in file.symbols:
                    if not symbol.is_local and symbol.is_weak == weak and (k, symbol.section) in self._places:
                        self._symbols.setdefault(symbol.name, self._places[k, symbol.section] + symbol.value)
        for file in files:
            for symbol in file.symbols:
                if symbol.section == _COMMON and symbol.name not in self._symbols:
                    self._align(symbol.value)
                    self._symbols[symbol.name] = len(self.code)
                    self.code += bytes(symbol.size)

    def _add_section(self, k: int, number: int, section: _Section) -> None:
        if section.flags & _WRITABLE:
            raise LinkError(f"section {section.name} is writable")
        self._align(section.alignment)
        self._places[k, number] = len(self.code)
        content = self._files[k].content[section.offset : section.offset + section.size]
        self.code += bytes(section.size) if section.kind == _ZEROS else content

    def _align(self, alignment: int) -> None:
        self.code += bytes(-len(self.code) % max(1, alignment))

    def place_of(self, name: str) -> int:
        """Return where a symbol is in the code."""
        try:
            return self._symbols[name]
        except KeyError:
            raise LinkError(f"symbol {name} is missing") from None

    def relocations(self) -> Iterator[Relocation]:
        """Carry out what does not depend on where the code will be; yield the rest."""
        for k, file in enumerate(self._files):
            for section, offset, kind, symbol, addend in file.relocations():
                if (k, section) in self._places:
                    place = self._places[k, section] + offset
                    target = self._target(k, symbol)
                    yield from self._relocate((file.machine, kind), place, symbol, target, addend)

    def _target(self, k: int, symbol: _Symbol) -> int | None:
        """Return where a symbol of a file is in the code; None if it is elsewhere."""
        if symbol.is_local or symbol.name == "":
            if (k, symbol.section) not in self._places:
                raise LinkError(f"symbol {symbol.name} is in a section that is not loaded")
            return self._places[k, symbol.section] + symbol.value
        return self._symbols.get(symbol.name)

    def _relocate(
        self, kind: tuple[int, int], place: int, symbol: _Symbol, target: int | None, addend: int
    ) -> Iterator[Relocation]:
        name, value = (symbol.name, addend) if target is None else (None, target + addend)
        if kind in _ABSOLUTE:
            yield Relocation(ABSOLUTE, place, name, value)
        elif kind in _MOVE_WIDE:
            yield Relocation(MOVE_WIDE + _MOVE_WIDE[kind], place, name, value)
        elif kind in _RELATIVE and name is None:
            struct.pack_into(_RELATIVE[kind], self.code, place, value - place)
        elif kind in _BRANCH:
            if name is not None:
                value, added = self._word(name, value, _FAR_JUMP)
                yield from added
            self._put(place, (value - place) >> 2, first_bit=0, num_bits=26)
        elif kind in _PAGE_OF_WORD or kind in _WORD_IN_PAGE:
            word, added = self._word(name, value, b"")
            yield from added
            if kind in _WORD_IN_PAGE:
                self._put(place, (word & _IN_PAGE) >> 3, first_bit=10, num_bits=12)
            else:  # the code begins on a page
                distance = (word >> _PAGE_BITS) - (place >> _PAGE_BITS)
                self._put(place, distance, first_bit=29, num_bits=2)
                self._put(place, distance >> 2, first_bit=5, num_bits=19)
        else:
            raise LinkError(f"relocation {kind} to {symbol.name}")

    def _word(self, name: str | None, value: int, before: bytes) -> tuple[int, list[Relocation]]:
        """Return where `before` and an address are in the code, and their relocation if they are new."""
        key = name, value, before
        if key in self._words:
            return self._words[key], []
        self._align(8)
        self._words[key] = place = len(self.code)
        self.code += before + bytes(8)
        return place, [Relocation(ABSOLUTE, place + len(before), name, value)]

    def _put(self, place: int, number: int, *, first_bit: int, num_bits: int) -> None:
        """Write a number into bits of an instruction."""
        (instruction,) = struct.unpack_from("<I", self.code, place)
        mask = (1 << num_bits) - 1 << first_bit
        struct.pack_into("<I", self.code, place, instruction & ~mask | number << first_bit & mask)
