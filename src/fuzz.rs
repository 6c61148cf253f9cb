//! Bytes for the fuzz targets: a good text with some changes, so that they come further than to the first check.
//!
//! A target is a test that gives [`NearlyGood`] to a property. `cargo test` tries some thousand of them; `make fuzz`
//! has libFuzzer choose them, guided by the code that they reach.

use bolero::TypeGenerator;

/// What breaks texts, and what parsers look for.
const PIECES: [&[u8]; 24] = [
    b"{",
    b"}",
    b"[",
    b"]",
    b"\"",
    b"\\",
    b":",
    b",",
    b"\n",
    b"\r\n",
    b"\r\n\r\n",
    b"\0",
    b"\xef\xbb\xbf",
    b"\xff",
    b"\xe2\x80\xa8",
    b"\\ud83d",
    b"null",
    b"1e999",
    b"-0",
    b"data: ",
    b"event: error\n",
    b"[DONE]",
    b"--b\r\n",
    b"--b--",
];

/// One change of a text. Places are counted modulo its length.
#[derive(Debug, Clone, TypeGenerator)]
pub enum Change {
    Insert { at: u16, piece: u8 },
    Set { at: u16, byte: u8 },
    Remove { at: u16, length: u8 },
    Repeat { at: u16, length: u8, times: u8 },
    Cut { at: u16 },
}

/// One of a target's good texts, with up to four changes.
#[derive(Debug, Clone, TypeGenerator)]
pub struct NearlyGood {
    seed: u8,
    changes: [Option<Change>; 4],
    chunk: u8,
}

impl NearlyGood {
    /// The bytes.
    pub fn bytes(&self, seeds: &[&[u8]]) -> Vec<u8> {
        let mut bytes = seeds[usize::from(self.seed) % seeds.len()].to_vec();
        for change in self.changes.iter().flatten() {
            change.make(&mut bytes);
        }
        bytes
    }

    /// In chunks of how many bytes they come.
    pub fn chunk(&self) -> usize {
        usize::from(self.chunk) + 1
    }
}

impl Change {
    fn make(&self, bytes: &mut Vec<u8>) {
        let place = |at: &u16| usize::from(*at) % (bytes.len() + 1);
        match self {
            Self::Insert { at, piece } => {
                let at = place(at);
                bytes.splice(at..at, PIECES[usize::from(*piece) % PIECES.len()].iter().copied());
            }
            Self::Set { at, byte } => {
                let at = place(at);
                bytes.get_mut(at).into_iter().for_each(|old| *old = *byte);
            }
            Self::Remove { at, length } => {
                let at = place(at);
                bytes.drain(at..bytes.len().min(at + usize::from(*length)));
            }
            Self::Repeat { at, length, times } => {
                let at = place(at);
                let part = bytes[at..bytes.len().min(at + usize::from(*length))].repeat(usize::from(*times));
                bytes.splice(at..at, part);
            }
            Self::Cut { at } => {
                let at = place(at);
                bytes.truncate(at);
            }
        }
    }
}
