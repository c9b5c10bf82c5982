//! `keygen` and `pubkey`, compatible with `wg genkey` and `wg pubkey`.

use std::io::Read as _;

use warren_crypto::PrivateKey;
use zeroize::Zeroizing;

use super::{OK, say};

pub(super) fn keygen() -> Result<u8, String> {
    say(PrivateKey::generate().to_base64().as_str());
    Ok(OK)
}

pub(super) fn pubkey() -> Result<u8, String> {
    let mut text = Zeroizing::new(String::new());
    std::io::stdin().take(4096).read_to_string(&mut text).map_err(|error| format!("standard input: {error}"))?;
    let key: PrivateKey = text.parse().map_err(|error| format!("standard input: {error}"))?;
    say(key.public_key());
    Ok(OK)
}
