//! An order of rows by their prompts, so that the server need not compute the same beginning again.
//!
//! Servers keep what they have computed of a prompt and use it for the next prompt that begins alike, as long as
//! nothing else has taken its place. Rows whose prompts begin alike therefore follow each other. Prompts are compared
//! at a few lengths, so only hashes are kept of each row.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, Hasher as _};

use foldhash::fast::{FixedState, RandomState};

/// The lengths, in bytes, up to which prompts are compared. The first is about what four blocks of 16 tokens have: less
/// is computed faster than it is looked for.
const LENGTHS: [usize; 4] = [256, 1024, 4096, 16_384];
/// The hash at a length that a prompt does not have.
const TOO_SHORT: u32 = 0;

/// Hashes of a prompt's beginnings of each of the lengths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Beginnings([u32; LENGTHS.len()]);

impl Beginnings {
    /// The beginnings of a prompt that is made of these texts.
    pub(super) fn of<'a>(texts: impl Iterator<Item = &'a str> + Clone) -> Self {
        let length_of_all: usize = texts.clone().map(str::len).sum();
        let mut hasher = FixedState::default().build_hasher();
        let mut hashes = [TOO_SHORT; LENGTHS.len()];
        let (mut texts, mut rest) = (texts, "".as_bytes());
        let mut piece = |most: usize| {
            while rest.is_empty() && most > 0 {
                rest = texts.next()?.as_bytes();
            }
            let (piece, behind) = rest.split_at(rest.len().min(most));
            rest = behind;
            Some(piece).filter(|piece| !piece.is_empty())
        };
        let mut read = 0;
        for (length, hash) in LENGTHS.into_iter().zip(&mut hashes).take_while(|(length, _)| *length <= length_of_all) {
            while let Some(piece) = piece(length - read) {
                hasher.write(piece);
                read += piece.len();
            }
            #[expect(clippy::cast_possible_truncation, reason = "half of a hash is one too")]
            let half = hasher.finish() as u32;
            *hash = half.max(TOO_SHORT + 1);
        }
        Self(hashes)
    }
}

/// The positions of `rows` in an order in which those that begin alike follow each other: each group stands where its
/// first row does, and its rows keep their order, except that those which begin alike at a greater length form groups
/// in turn.
pub(super) fn by_beginning(rows: &[Beginnings]) -> Vec<usize> {
    let mut positions: Vec<usize> = (0..rows.len()).collect();
    group(&mut positions, rows, 0);
    positions
}

fn group(positions: &mut [usize], rows: &[Beginnings], level: usize) {
    // Of two rows, neither can stand between others.
    if level == LENGTHS.len() || positions.len() < 3 {
        return;
    }
    // With random keys: the file decides about the hashes.
    let mut first_of = HashMap::with_hasher(RandomState::default());
    let mut long = 0;
    for &position in positions.iter().filter(|position| rows[**position].0[level] != TOO_SHORT) {
        first_of.entry(rows[position].0[level]).or_insert(position);
        long += 1;
    }
    if first_of.len() < long {
        positions.sort_by_cached_key(|&position| match rows[position].0[level] {
            TOO_SHORT => position,
            hash => first_of[&hash],
        });
        for alike in positions.chunk_by_mut(|&a, &b| rows[a].0[level] == rows[b].0[level]) {
            group(alike, rows, level + 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(prompts: &[String]) -> Vec<usize> {
        let rows: Vec<_> = prompts.iter().map(|prompt| Beginnings::of([prompt.as_str()].into_iter())).collect();
        by_beginning(&rows)
    }

    fn text(parts: &[(char, usize)]) -> String {
        parts.iter().flat_map(|(letter, times)| std::iter::repeat_n(*letter, *times)).collect()
    }

    #[test]
    fn rows_that_begin_alike_follow_each_other_in_the_order_of_the_file() {
        let of = |letter, end| text(&[(letter, 300), (end, 10)]);
        let cases = [
            (vec![of('a', '1'), of('b', '2'), of('a', '3'), of('b', '4'), of('a', '5')], vec![0, 2, 4, 1, 3]),
            (vec![of('a', '1'), "short".to_owned(), of('a', '2'), "short".to_owned()], vec![0, 2, 1, 3]),
            (vec!["s".to_owned(), "t".to_owned(), "s".to_owned(), "t".to_owned()], vec![0, 1, 2, 3]),
            (vec![of('a', '1'), of('b', '2'), of('c', '3')], vec![0, 1, 2]),
            (vec![of('a', '1'), of('a', '2'), of('a', '3')], vec![0, 1, 2]),
            (vec![], vec![]),
        ];
        for (prompts, expected) in cases {
            assert_eq!(order(&prompts), expected, "{prompts:?}");
        }
    }

    #[test]
    fn a_group_has_groups_of_rows_that_are_alike_for_longer() {
        let of = |middle| text(&[('a', 300), (middle, 1000), ('z', 5)]);

        assert_eq!(order(&[of('x'), of('y'), text(&[('b', 900)]), of('x'), of('y')]), [0, 3, 1, 4, 2]);
    }

    #[test]
    fn a_prompt_of_several_texts_is_compared_as_one() {
        let long = "p".repeat(1000);
        let of = |tools: &str| Beginnings::of([tools, &long].into_iter());

        assert_eq!(of("tools"), of("tools"));
        assert_ne!(of("tools"), of("other"));
    }
}
