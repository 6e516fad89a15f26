//! Pieces of read-only images (config drives) that are carried to the destination before the start.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

/// The most bytes of an image in one piece: with base64 and everything around it, well below the largest message.
pub const PIECE_BYTES_MAX: usize = 2 << 20;

/// A piece of an image: what is not zero from some offset on. The file was made full of zeros.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImagePiece {
    /// Ranges with content, in order.
    pub extents: Vec<Extent>,
    /// Where the next piece begins; none after the last one.
    pub next: Option<u64>,
}

/// A range of an image. Its content is the guest's business: it is never shown.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extent {
    /// Where it begins, in bytes.
    pub offset: u64,
    /// Its content.
    #[serde(with = "base64_text")]
    pub content: Vec<u8>,
}

impl fmt::Debug for ImagePiece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ImagePiece").field("extents", &self.extents).field("next", &self.next).finish()
    }
}

impl fmt::Debug for Extent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes at {}", self.content.len(), self.offset)
    }
}

mod base64_text {
    use serde::{Deserializer, Serializer, de};

    use super::{Deserialize, Engine, STANDARD};

    pub(super) fn serialize<S: Serializer>(content: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(content))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        STANDARD.decode(text.as_ref()).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_content_of_an_image_is_never_shown() {
        let piece = ImagePiece { extents: vec![Extent { offset: 4096, content: b"admin_pass".to_vec() }], next: None };
        assert_eq!(format!("{piece:?}"), "ImagePiece { extents: [10 bytes at 4096], next: None }");
        let sent = serde_json::to_string(&piece).unwrap();
        assert_eq!(serde_json::from_str::<ImagePiece>(&sent).unwrap(), piece);
    }
}
