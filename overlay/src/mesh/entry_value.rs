//! A record's bytes in JSON: a string where they are text, as every honest record is; otherwise their numbers, which is
//! also how all of them were written once.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

#[derive(Deserialize)]
#[serde(untagged)]
enum Value {
    Text(String),
    Bytes(Vec<u8>),
}

pub(super) fn serialize<S: Serializer>(value: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    match std::str::from_utf8(value) {
        Ok(text) => serializer.serialize_str(text),
        Err(_) => value.serialize(serializer),
    }
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    Ok(match Value::deserialize(deserializer)? {
        Value::Text(text) => text.into_bytes(),
        Value::Bytes(bytes) => bytes,
    })
}

#[cfg(test)]
mod tests {
    use super::super::Entry;

    fn entry(value: &[u8]) -> Entry {
        Entry { key: "a".to_owned(), value: value.to_vec(), create_revision: 1 }
    }

    #[test]
    fn any_bytes_survive_and_text_is_written_as_text() {
        for value in [&b"{\"a\":1}"[..], b"", b"\0\x1b", b"\xff\xfe", "h\u{e9}".as_bytes()] {
            let text = serde_json::to_string(&entry(value)).unwrap();
            assert_eq!(text.contains("\"value\":\""), std::str::from_utf8(value).is_ok(), "{text}");
            assert_eq!(serde_json::from_str::<Entry>(&text).unwrap(), entry(value));
        }
    }

    #[test]
    fn what_was_written_as_numbers_is_still_read() {
        let text = r#"{"key":"a","value":[123,125],"create_revision":1}"#;
        assert_eq!(serde_json::from_str::<Entry>(text).unwrap(), entry(b"{}"));
    }
}
