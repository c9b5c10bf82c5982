//! The smallest object file that `tc` takes a program from: its code as a section, and a symbol that says it is a function.

/// The section that holds the program.
pub(super) const SECTION: &str = "classifier";
/// The names of sections and of the function, filled up to a multiple of eight.
const NAMES: &[u8; 40] = b"\0classifier\0.strtab\0.symtab\0redirect\0\0\0\0";
// Numbers of the sections. The first is void.
const CODE: u16 = 1;
const STRINGS: u16 = 2;
const SECTIONS: u16 = 4;
// Sizes of the file's header, a section's and a symbol's.
const HEADER: u16 = 64;
const SECTION_HEADER: u16 = 64;
const SYMBOL: u16 = 24;

/// An object file of 64 bits for the machine "BPF" around the code, whose length is a multiple of eight.
pub(super) fn object(code: &[u8]) -> Vec<u8> {
    let symbols = [vec![0; SYMBOL.into()], function(code.len())].concat();
    let code_at = usize::from(HEADER);
    let names_at = code_at + code.len();
    let symbols_at = names_at + NAMES.len();
    let sections = [
        vec![0; SECTION_HEADER.into()],
        // Code (SHT_PROGBITS) that is loaded and executed (SHF_ALLOC, SHF_EXECINSTR).
        section(SECTION, 1, 6, (code_at, code.len()), (0, 0, 0)),
        // Strings (SHT_STRTAB).
        section(".strtab", 3, 0, (names_at, NAMES.len()), (0, 0, 0)),
        // Symbols (SHT_SYMTAB) with names from those strings, of which the first is local.
        section(".symtab", 2, 0, (symbols_at, symbols.len()), (STRINGS.into(), 1, SYMBOL.into())),
    ];
    [header(symbols_at + symbols.len()), code.to_vec(), NAMES.to_vec(), symbols, sections.concat()].concat()
}

/// Relocatable (ET_REL), for EM_BPF, version 1; with neither an entry nor segments.
fn header(sections_at: usize) -> Vec<u8> {
    let mut header = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    header.extend([1u16, 247, 1, 0].map(u16::to_le_bytes).concat());
    header.extend([0, 0, number(sections_at)].map(u64::to_le_bytes).concat());
    header.extend([0, 0, HEADER, 0, 0, SECTION_HEADER, SECTIONS, STRINGS].map(u16::to_le_bytes).concat());
    header
}

/// `place` is where it begins and its length; `of` are sh_link, sh_info and sh_entsize.
fn section(name: &str, kind: u32, flags: u64, place: (usize, usize), of: (u32, u32, u64)) -> Vec<u8> {
    let mut header = [name_at(name), kind].map(u32::to_le_bytes).concat();
    header.extend([flags, 0, number(place.0), number(place.1)].map(u64::to_le_bytes).concat());
    header.extend([of.0, of.1].map(u32::to_le_bytes).concat());
    header.extend([8, of.2].map(u64::to_le_bytes).concat());
    header
}

/// A global function (STB_GLOBAL, STT_FUNC) that is all of the code.
fn function(length: usize) -> Vec<u8> {
    let mut symbol = name_at("redirect").to_le_bytes().to_vec();
    symbol.extend([0x12, 0]);
    symbol.extend(CODE.to_le_bytes());
    symbol.extend([0, number(length)].map(u64::to_le_bytes).concat());
    symbol
}

fn name_at(name: &str) -> u32 {
    let at = NAMES.windows(name.len()).position(|window| window == name.as_bytes());
    at.and_then(|at| at.try_into().ok()).expect("one of the names")
}

fn number(length: usize) -> u64 {
    length.try_into().expect("a small number")
}
