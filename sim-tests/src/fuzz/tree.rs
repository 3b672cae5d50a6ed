//! Any value as a tree, so that what is inside it can be changed and moved about, and encoded again.

use std::fmt;

use polder_types::encode;
use serde::ser::{
    Error as _, Serialize, SerializeSeq, SerializeStruct, SerializeStructVariant, SerializeTuple, SerializeTupleStruct,
    SerializeTupleVariant, Serializer,
};

use crate::random::Random;

/// From this many bytes on a tuple of bytes is one leaf: a digest, a key, a signature.
const ARRAY_BYTES_MIN: usize = 8;

/// A value, as the encoding sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tree {
    /// A truth value.
    Bool(bool),
    /// One byte.
    Byte(u8),
    /// A number of 16 bits.
    U16(u16),
    /// A number of 32 bits.
    U32(u32),
    /// A number of 64 bits.
    U64(u64),
    /// A number of 128 bits.
    U128(u128),
    /// Bytes with a length.
    Bytes(Vec<u8>),
    /// Bytes without one: a digest, a key, a signature.
    Array(Vec<u8>),
    /// Text.
    Text(String),
    /// Nothing, or one value.
    Option(Option<Box<Tree>>),
    /// Values with a count.
    List(Vec<Tree>),
    /// Values without one: the fields of a struct or a tuple.
    Record(Vec<Tree>),
    /// A variant of an enum, and its fields.
    Variant(u32, Vec<Tree>),
}

impl Tree {
    /// The tree of a value; none when the value holds what nothing that travels holds: a map, a float, a signed number.
    pub fn of<T: Serialize + ?Sized>(value: &T) -> Option<Self> {
        value.serialize(Grow).ok()
    }

    /// The bytes of the value that it stands for.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    /// Whether the other may stand where this one stands.
    #[must_use]
    pub fn fits(&self, other: &Self) -> bool {
        use Tree::{Array, Record};
        match (self, other) {
            (Array(one), Array(other)) => one.len() == other.len(),
            (Record(one), Record(other)) => {
                one.len() == other.len() && one.iter().zip(other).all(|(one, other)| one.fits(other))
            }
            (one, other) => std::mem::discriminant(one) == std::mem::discriminant(other),
        }
    }

    fn children(&self) -> &[Tree] {
        match self {
            Self::Option(Some(inside)) => std::slice::from_ref(inside),
            Self::List(inside) | Self::Record(inside) | Self::Variant(_, inside) => inside,
            _ => &[],
        }
    }

    fn children_mut(&mut self) -> &mut [Tree] {
        match self {
            Self::Option(Some(inside)) => std::slice::from_mut(inside),
            Self::List(inside) | Self::Record(inside) | Self::Variant(_, inside) => inside,
            _ => &mut [],
        }
    }

    /// How many nodes it has, itself among them.
    #[must_use]
    pub fn nodes(&self) -> usize {
        1 + self.children().iter().map(Self::nodes).sum::<usize>()
    }

    /// All its nodes, itself first.
    pub fn walk<'a>(&'a self, visit: &mut impl FnMut(&'a Tree)) {
        visit(self);
        self.children().iter().for_each(|child| child.walk(visit));
    }

    /// The lists in it that are not empty: where each is, in the order of [`Tree::walk`], and a name that all lists share
    /// that stand at the same place of the same type.
    #[must_use]
    pub fn lists(&self) -> Vec<(usize, String)> {
        let (mut found, mut index) = (Vec::new(), 0);
        self.find_lists(&mut index, String::new(), &mut found);
        found
    }

    fn find_lists(&self, index: &mut usize, name: String, found: &mut Vec<(usize, String)>) {
        if let Self::List(list) = self
            && !list.is_empty()
        {
            found.push((*index, name.clone()));
        }
        *index += 1;
        for (place, child) in self.children().iter().enumerate() {
            let step = match self {
                Self::List(_) => "[]".to_owned(),
                Self::Variant(variant, _) => format!("{variant}.{place}"),
                _ => place.to_string(),
            };
            child.find_lists(index, format!("{name}/{step}"), found);
        }
    }

    /// The same with the list at `index` made of so many copies of its first element.
    #[must_use]
    pub fn with_list_of(&self, index: usize, count: usize) -> Self {
        let mut tree = self.clone();
        if let Some(Self::List(list)) = tree.node_mut(index) {
            let first = list.first().map(Self::lean).unwrap_or(Self::Bool(false));
            *list = vec![first; count];
        }
        tree
    }

    /// The same with all that has a length empty, so that many of it take little room.
    fn lean(&self) -> Self {
        let mut tree = self.clone();
        match &mut tree {
            Self::Bytes(bytes) => bytes.clear(),
            Self::Text(text) => text.clear(),
            Self::List(list) => list.clear(),
            other => other.children_mut().iter_mut().for_each(|child| *child = child.lean()),
        }
        tree
    }

    fn node_mut(&mut self, mut index: usize) -> Option<&mut Tree> {
        if index == 0 {
            return Some(self);
        }
        index -= 1;
        for child in self.children_mut() {
            let nodes = child.nodes();
            if index < nodes {
                return child.node_mut(index);
            }
            index -= nodes;
        }
        None
    }

    /// Changes one node: a field by a little or a lot, a list's length or order, a part for one of the same shape out of
    /// a donor (a certificate of another slot, a digest of another batch, an entry of another view).
    pub fn mutate(&mut self, random: &mut Random, donors: &[Tree]) {
        let index = random.below(self.nodes());
        let Some(node) = self.node_mut(index) else { return };
        if random.chance(350)
            && let Some(donor) = random.pick(donors)
        {
            let mut fitting = Vec::new();
            donor.walk(&mut |other| {
                if node.fits(other) && node != other {
                    fitting.push(other);
                }
            });
            if let Some(chosen) = random.pick(&fitting) {
                *node = (*chosen).clone();
                return;
            }
        }
        node.change(random);
    }

    fn change(&mut self, random: &mut Random) {
        match self {
            Self::Bool(value) => *value = !*value,
            Self::Byte(value) => *value = near(random, (*value).into(), u8::MAX.into()) as u8,
            Self::U16(value) => *value = near(random, (*value).into(), u16::MAX.into()) as u16,
            Self::U32(value) => *value = near(random, (*value).into(), u32::MAX.into()) as u32,
            Self::U64(value) => *value = near(random, (*value).into(), u64::MAX.into()) as u64,
            Self::U128(value) => *value = near(random, *value, u128::MAX),
            Self::Bytes(bytes) => super::mutate::bytes(bytes, random, &[]),
            Self::Array(bytes) => {
                let at = random.below(bytes.len());
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << random.below(8);
                }
            }
            Self::Text(text) => {
                let mut bytes = std::mem::take(text).into_bytes();
                super::mutate::bytes(&mut bytes, random, &[]);
                *text = String::from_utf8_lossy(&bytes).into_owned();
            }
            Self::Option(inside) => *inside = None,
            Self::List(list) => reshape(list, random),
            Self::Record(fields) => random.shuffle(fields),
            Self::Variant(index, _) => *index = near(random, (*index).into(), 12) as u32,
        }
    }
}

/// One more, one less, the least, the most, half, any.
fn near(random: &mut Random, value: u128, most: u128) -> u128 {
    match random.range(0, 7) {
        0 | 1 => value.saturating_add(1),
        2 | 3 => value.saturating_sub(1),
        4 => 0,
        5 => most,
        6 => value ^ (1 << random.below(64)) & most,
        _ => u128::from(random.bits()) & most,
    }
    .min(most)
}

/// A list with one fewer, one twice, two changed about, all turned round, none, or one many times over.
fn reshape(list: &mut Vec<Tree>, random: &mut Random) {
    let at = random.below(list.len());
    let Some(chosen) = list.get(at).cloned() else { return };
    match random.range(0, 6) {
        0 => drop(list.remove(at)),
        1 => list.insert(at, chosen),
        2 => list.swap(0, at),
        3 => list.reverse(),
        4 => list.clear(),
        5 => list.truncate(at),
        _ => {
            let copies = 1 << random.range(1, 11);
            list.extend(std::iter::repeat_n(chosen, copies));
        }
    }
}

impl Serialize for Tree {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Byte(value) => serializer.serialize_u8(*value),
            Self::U16(value) => serializer.serialize_u16(*value),
            Self::U32(value) => serializer.serialize_u32(*value),
            Self::U64(value) => serializer.serialize_u64(*value),
            Self::U128(value) => serializer.serialize_u128(*value),
            Self::Bytes(bytes) => serializer.serialize_bytes(bytes),
            Self::Text(text) => serializer.serialize_str(text),
            Self::Option(None) => serializer.serialize_none(),
            Self::Option(Some(inside)) => serializer.serialize_some(inside),
            Self::List(list) => list.serialize(serializer),
            Self::Array(bytes) => {
                let mut tuple = serializer.serialize_tuple(bytes.len())?;
                bytes.iter().try_for_each(|byte| tuple.serialize_element(byte))?;
                tuple.end()
            }
            Self::Record(fields) => {
                let mut tuple = serializer.serialize_tuple(fields.len())?;
                fields.iter().try_for_each(|field| tuple.serialize_element(field))?;
                tuple.end()
            }
            Self::Variant(index, fields) => {
                let mut tuple = serializer.serialize_tuple_variant("", *index, "", fields.len())?;
                fields.iter().try_for_each(|field| tuple.serialize_field(field))?;
                tuple.end()
            }
        }
    }
}

/// Makes a tree out of a value.
struct Grow;

/// What a tree cannot hold.
#[derive(Debug)]
struct NotATree;

impl fmt::Display for NotATree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("nothing that travels")
    }
}

impl std::error::Error for NotATree {}

impl serde::ser::Error for NotATree {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self
    }
}

/// The parts of a list, a tuple, a struct or a variant, as they come.
struct Parts {
    kind: Kind,
    parts: Vec<Tree>,
}

enum Kind {
    List,
    Record,
    Variant(u32),
}

impl Parts {
    fn new(kind: Kind) -> Self {
        Self { kind, parts: Vec::new() }
    }

    fn push<T: Serialize + ?Sized>(&mut self, part: &T) -> Result<(), NotATree> {
        self.parts.push(part.serialize(Grow)?);
        Ok(())
    }

    fn finish(self) -> Tree {
        let is_bytes = self.parts.iter().all(|part| matches!(part, Tree::Byte(_)));
        match self.kind {
            Kind::List => Tree::List(self.parts),
            Kind::Variant(index) => Tree::Variant(index, self.parts),
            Kind::Record if is_bytes && self.parts.len() >= ARRAY_BYTES_MIN => {
                let byte = |part: Tree| if let Tree::Byte(byte) = part { byte } else { 0 };
                Tree::Array(self.parts.into_iter().map(byte).collect())
            }
            Kind::Record => Tree::Record(self.parts),
        }
    }
}

/// The six traits by which serde hands out parts, all alike.
macro_rules! collects {
    ($($trait:ident $push:ident($($name:ident)?)),+ $(,)?) => {$(
        impl $trait for Parts {
            type Ok = Tree;
            type Error = NotATree;

            fn $push<T: Serialize + ?Sized>(&mut self, $($name: &'static str,)? part: &T) -> Result<(), NotATree> {
                $(let _ = $name;)?
                self.push(part)
            }

            fn end(self) -> Result<Tree, NotATree> {
                Ok(self.finish())
            }
        }
    )+};
}

collects!(
    SerializeSeq serialize_element(),
    SerializeTuple serialize_element(),
    SerializeTupleStruct serialize_field(),
    SerializeTupleVariant serialize_field(),
    SerializeStruct serialize_field(_name),
    SerializeStructVariant serialize_field(_name),
);

/// The leaves that a tree holds as they are, and those that it cannot hold.
macro_rules! leaves {
    ($($method:ident($type:ty) $leaf:ident),+; $($no:ident($other:ty)),+) => {
        $(fn $method(self, value: $type) -> Result<Tree, NotATree> {
            Ok(Tree::$leaf(value.into()))
        })+
        $(fn $no(self, _: $other) -> Result<Tree, NotATree> {
            Err(NotATree)
        })+
    };
}

impl Serializer for Grow {
    type Ok = Tree;
    type Error = NotATree;
    type SerializeSeq = Parts;
    type SerializeTuple = Parts;
    type SerializeTupleStruct = Parts;
    type SerializeTupleVariant = Parts;
    type SerializeMap = serde::ser::Impossible<Tree, NotATree>;
    type SerializeStruct = Parts;
    type SerializeStructVariant = Parts;

    leaves!(
        serialize_bool(bool) Bool, serialize_u8(u8) Byte, serialize_u16(u16) U16, serialize_u32(u32) U32,
        serialize_u64(u64) U64, serialize_u128(u128) U128, serialize_str(&str) Text, serialize_bytes(&[u8]) Bytes;
        serialize_i8(i8), serialize_i16(i16), serialize_i32(i32), serialize_i64(i64), serialize_f32(f32),
        serialize_f64(f64), serialize_char(char)
    );

    fn is_human_readable(&self) -> bool {
        false
    }

    fn serialize_none(self) -> Result<Tree, NotATree> {
        Ok(Tree::Option(None))
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<Tree, NotATree> {
        Ok(Tree::Option(Some(Box::new(value.serialize(Grow)?))))
    }

    fn serialize_unit(self) -> Result<Tree, NotATree> {
        Ok(Tree::Record(Vec::new()))
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<Tree, NotATree> {
        self.serialize_unit()
    }

    fn serialize_unit_variant(self, _: &'static str, index: u32, _: &'static str) -> Result<Tree, NotATree> {
        Ok(Tree::Variant(index, Vec::new()))
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Result<Tree, NotATree> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        index: u32,
        _: &'static str,
        value: &T,
    ) -> Result<Tree, NotATree> {
        Ok(Tree::Variant(index, vec![value.serialize(self)?]))
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Parts, NotATree> {
        Ok(Parts::new(Kind::List))
    }

    fn serialize_tuple(self, _: usize) -> Result<Parts, NotATree> {
        Ok(Parts::new(Kind::Record))
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Parts, NotATree> {
        Ok(Parts::new(Kind::Record))
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        index: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Parts, NotATree> {
        Ok(Parts::new(Kind::Variant(index)))
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Self::SerializeMap, NotATree> {
        Err(NotATree::custom("a map"))
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Parts, NotATree> {
        Ok(Parts::new(Kind::Record))
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        index: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Parts, NotATree> {
        Ok(Parts::new(Kind::Variant(index)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzz::samples;
    use crate::random::Purpose;

    /// The tree of everything that travels encodes to the bytes of the value itself.
    #[test]
    fn a_tree_is_encoded_as_its_value() {
        for message in &samples::get().peers {
            let tree = Tree::of(message).expect("what travels is a tree");
            assert_eq!(tree.encode(), encode(message), "{message:?}");
        }
    }

    /// Most changes of a message are still messages: what is behind the decoders is reached.
    #[test]
    fn most_changed_messages_can_be_decoded() {
        let samples = samples::get();
        let trees: Vec<Tree> = samples.peers.iter().filter_map(Tree::of).collect();
        let mut random = Random::new(1, Purpose::Fuzz);
        let mut decoded = 0;
        for _ in 0..1_000 {
            let mut tree = random.pick(&trees).expect("there are messages").clone();
            tree.mutate(&mut random, &trees);
            let bytes = tree.encode();
            decoded += u32::from(polder_types::decode::<polder_node::replica::PeerMessage>(&bytes, usize::MAX).is_ok());
        }
        assert!(decoded > 600, "{decoded} of 1000");
    }
}
