//! Changes to bytes: what a bad line, a bad disk or somebody with bad intentions does to them.

use crate::random::Random;

/// Numbers at which an encoding has its edges: `80 00` is a zero that is too long, five and ten bytes of ones a length
/// beyond all memory.
const EDGES: [&[u8]; 10] = [
    &[0x00],
    &[0x01],
    &[0x7f],
    &[0x80, 0x00],
    &[0x80, 0x01],
    &[0xff, 0x00],
    &[0xff, 0xff, 0x03],
    &[0xff, 0xff, 0xff, 0xff, 0x0f],
    &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
    &[0xfe, 0xff, 0xff, 0xff, 0x07],
];

/// Changes the bytes at one place; `other` is what may be spliced in.
pub fn bytes(bytes: &mut Vec<u8>, random: &mut Random, other: &[u8]) {
    let at = random.below(bytes.len() + 1);
    match random.range(0, 10) {
        0 | 1 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << random.below(8);
            }
        }
        2 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = random.bits() as u8;
            }
        }
        3 => {
            let edge = random.pick(&EDGES).copied().unwrap_or_default();
            let end = if random.chance(500) { at } else { (at + edge.len()).min(bytes.len()) };
            bytes.splice(at..end, edge.iter().copied());
        }
        4 => bytes.truncate(at),
        5 => {
            let end = (at + 1 + random.below(8)).min(bytes.len());
            bytes.drain(at..end);
        }
        6 => {
            let end = (at + 1 + random.below(64)).min(bytes.len());
            bytes.extend_from_within(at..end);
        }
        7 => bytes.insert(at, random.bits() as u8),
        8 => {
            let end = (at + 1 + random.below(16)).min(bytes.len());
            bytes.iter_mut().take(end).skip(at).for_each(|byte| *byte = 0);
        }
        9 => {
            // The number that stands here, one more or less.
            if let Some(byte) = bytes.get_mut(at) {
                *byte = if random.chance(500) { byte.wrapping_add(1) } else { byte.wrapping_sub(1) };
            }
        }
        _ => {
            let from = random.below(other.len() + 1);
            bytes.truncate(at);
            bytes.extend(other.iter().skip(from));
        }
    }
}

/// Changes a text at one place: a character, a word, a line, a number.
pub fn text(text: &mut String, random: &mut Random) {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let at = random.below(lines.len());
    let Some(line) = lines.get(at).cloned() else { return };
    match random.range(0, 7) {
        0 => drop(lines.remove(at)),
        1 => lines.insert(at, line),
        2 => {
            let other = random.below(lines.len());
            lines.swap(at, other);
        }
        3 | 4 => {
            // Another value for the key.
            const VALUES: [&str; 12] = [
                "0",
                "1",
                "-1",
                "18446744073709551615",
                "9223372036854775807",
                "9223372036854775808",
                "true",
                "\"\"",
                "\"\u{1F980}\"",
                "[]",
                "{ hybrid = { byzantine = 255 } }",
                "[[[[[[[[1]]]]]]]]",
            ];
            if let Some((key, _)) = line.split_once('=') {
                lines[at] = format!("{key}= {}", random.pick(&VALUES).copied().unwrap_or_default());
            }
        }
        5 => {
            let mut changed = line.into_bytes();
            bytes(&mut changed, random, b"= \"[");
            lines[at] = String::from_utf8_lossy(&changed).into_owned();
        }
        6 => lines.truncate(at),
        _ => {
            let key = format!("{}{}", line, random.range(0, 9));
            lines[at] = key;
        }
    }
    *text = lines.join("\n");
    text.push('\n');
}
