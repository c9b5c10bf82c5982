//! `keygen` and `pubkey`, compatible with `wg genkey` and `wg pubkey`.

use std::io::{IsTerminal as _, Read as _};

use warren_crypto::PrivateKey;
use zeroize::Zeroizing;

use super::{OK, say};

/// More bytes than a key and what surrounds it.
const INPUT_MAX: u64 = 4096;

pub(super) fn keygen() -> Result<u8, String> {
    say(PrivateKey::generate().to_base64().as_str());
    Ok(OK)
}

pub(super) fn pubkey() -> Result<u8, String> {
    if std::io::stdin().is_terminal() {
        eprintln!("warren: reading a private key from the terminal; `warren pubkey < FILE` reads a file");
    }
    let mut text = Zeroizing::new(String::with_capacity(INPUT_MAX as usize + 1));
    let wrong =
        |what: &dyn std::fmt::Display| format!("standard input: {what}; give it one key, as `warren keygen` prints");
    std::io::stdin().take(INPUT_MAX + 1).read_to_string(&mut text).map_err(|error| wrong(&error))?;
    if text.len() as u64 > INPUT_MAX {
        return Err(wrong(&format_args!("more than {INPUT_MAX} bytes")));
    }
    let key: PrivateKey = text.parse().map_err(|error| wrong(&error))?;
    say(key.public_key());
    Ok(OK)
}
