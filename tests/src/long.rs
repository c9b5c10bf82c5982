//! What the default run does in short, and in full when asked.

/// Whether `WARREN_LAB_LONG=1` asks for the full length.
pub fn long() -> bool {
    std::env::var("WARREN_LAB_LONG").is_ok_and(|value| value == "1")
}

/// Blocks of 64 KiB in a large transfer: 1 GiB in full, else 128 MiB.
pub fn large() -> u64 {
    if long() { 16 << 10 } else { 2 << 10 }
}

/// Seconds that an outage lasts: 60 in full, else 10.
pub fn outage() -> u64 {
    if long() { 60 } else { 10 }
}
