//! Walks the body of a message against its writer's schema before anything decodes it, so that no decoder ever sees a bad body.
//!
//! The schema is compiled once into a flat program. A walk allocates nothing; its depth, its items and its lengths are bounded.

use std::collections::HashMap;
use std::ops::Range;

use apache_avro::Schema;
use apache_avro::schema::{InnerDecimalSchema, UuidSchema};
use legwork_types::RejectReason;

use super::names::Names;

/// Nested values deeper than this are refused: recursive schemas allow any depth.
const DEPTH_MAX: u32 = 64;
/// Items of arrays and fields of nested records that take no byte (null, or records of nulls) in one body. All others are fewer than its bytes.
const EMPTY_VALUES_MAX: u32 = 65_536;
/// Nodes of one program: a schema of a megabyte has fewer.
const NODES_MAX: usize = 100_000;

/// What was wrong with a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) reason: RejectReason,
    /// What was found.
    pub(crate) what: &'static str,
    /// Position of the field of the record in which it was found; none behind the last one.
    pub(crate) field_idx: Option<usize>,
}

const TRUNCATED: (RejectReason, &str) = (RejectReason::Truncated, "the body ends");
const BAD_VARINT: (RejectReason, &str) = (RejectReason::Malformed, "a number has too many bytes");
const BAD_INT: (RejectReason, &str) = (RejectReason::Malformed, "an int has more than 32 bits");
const BAD_LENGTH: (RejectReason, &str) = (RejectReason::Malformed, "a length is negative or beyond any message");
const BAD_BOOL: (RejectReason, &str) = (RejectReason::Malformed, "a boolean is neither 0 nor 1");
const BAD_UNION: (RejectReason, &str) = (RejectReason::Malformed, "a union branch is out of range");
const BAD_ENUM: (RejectReason, &str) = (RejectReason::Malformed, "an enum symbol is out of range");
const BAD_UTF8: (RejectReason, &str) = (RejectReason::Malformed, "a string is not UTF-8");
const BAD_BLOCK: (RejectReason, &str) = (RejectReason::Malformed, "a block of items has a wrong count or size");
const TOO_MANY_EMPTY: (RejectReason, &str) = (RejectReason::Malformed, "too many values take no bytes");
const TOO_DEEP: (RejectReason, &str) = (RejectReason::Malformed, "values are nested too deep");

pub(crate) type Walked<T> = Result<T, (RejectReason, &'static str)>;

#[derive(Clone, Copy, Debug)]
pub(crate) enum Node {
    Null,
    Bool,
    Int,
    Long,
    Fixed(u32),
    Bytes,
    Str,
    Enum(u32),
    /// A union of null and one other; the branch that is null.
    Optional {
        null_branch: u64,
        inner: u32,
    },
    Union {
        start: u32,
        n_branches: u32,
    },
    Record {
        start: u32,
        n_fields: u32,
    },
    Array(u32),
    Map(u32),
}

/// A writer's record as a flat program.
#[derive(Debug)]
pub(crate) struct Program {
    nodes: Vec<Node>,
    children: Vec<u32>,
    fields: Vec<Node>,
}

impl Program {
    /// Compiles a record. *Errors:* a text when it is no record, refers to unknown names or is larger than any schema in use.
    pub(crate) fn compile(schema: &Schema, names: &Names<'_>) -> Result<Program, String> {
        let mut compiler = Compiler { names, nodes: Vec::new(), children: Vec::new(), records: HashMap::new() };
        let root = compiler.add(schema, None)?;
        let Node::Record { start, n_fields } = compiler.nodes[root as usize] else {
            return Err("the writer's schema is not a record".to_owned());
        };
        let fields = compiler.children[start as usize..(start + n_fields) as usize]
            .iter()
            .map(|&child| compiler.nodes[child as usize])
            .collect();
        Ok(Program { nodes: compiler.nodes, children: compiler.children, fields })
    }

    /// Nodes of the record's fields.
    pub(crate) fn fields(&self) -> &[Node] {
        &self.fields
    }

    /// Walks a whole body.
    #[inline]
    pub(crate) fn walk(&self, body: &[u8]) -> Result<(), Fault> {
        self.walk_fields(body, |_, _| {})
    }

    /// Walks a whole body and tells where each field of the record lies in it.
    #[inline]
    pub(crate) fn walk_fields(&self, body: &[u8], mut on_field: impl FnMut(usize, Range<usize>)) -> Result<(), Fault> {
        let mut walker = Walker::new(self, body);
        for (field_idx, &node) in self.fields.iter().enumerate() {
            let start = body.len() - walker.rest.len();
            walker.value(node, 0).map_err(|(reason, what)| Fault { reason, what, field_idx: Some(field_idx) })?;
            on_field(field_idx, start..body.len() - walker.rest.len());
        }
        walker.finish()
    }
}

struct Compiler<'n, 'a> {
    names: &'n Names<'a>,
    nodes: Vec<Node>,
    children: Vec<u32>,
    records: HashMap<String, u32>,
}

impl Compiler<'_, '_> {
    fn push(&mut self, node: Node) -> Result<u32, String> {
        if self.nodes.len() >= NODES_MAX {
            return Err(format!("the writer's schema has more than {NODES_MAX} parts"));
        }
        self.nodes.push(node);
        Ok(u32::try_from(self.nodes.len() - 1).expect("bounded by NODES_MAX"))
    }

    fn add(&mut self, schema: &Schema, namespace: Option<&str>) -> Result<u32, String> {
        let node = match schema {
            Schema::Null => Node::Null,
            Schema::Boolean => Node::Bool,
            Schema::Int | Schema::Date | Schema::TimeMillis => Node::Int,
            Schema::Long
            | Schema::TimeMicros
            | Schema::TimestampMillis
            | Schema::TimestampMicros
            | Schema::TimestampNanos
            | Schema::LocalTimestampMillis
            | Schema::LocalTimestampMicros
            | Schema::LocalTimestampNanos => Node::Long,
            Schema::Float => Node::Fixed(4),
            Schema::Double => Node::Fixed(8),
            Schema::Bytes | Schema::BigDecimal | Schema::Uuid(UuidSchema::Bytes) => Node::Bytes,
            Schema::String | Schema::Uuid(UuidSchema::String) => Node::Str,
            Schema::Fixed(fixed) | Schema::Duration(fixed) | Schema::Uuid(UuidSchema::Fixed(fixed)) => {
                fixed_node(fixed.size)?
            }
            Schema::Decimal(decimal) => match &decimal.inner {
                InnerDecimalSchema::Bytes => Node::Bytes,
                InnerDecimalSchema::Fixed(fixed) => fixed_node(fixed.size)?,
            },
            Schema::Enum(symbols) => Node::Enum(u32::try_from(symbols.symbols.len()).map_err(|e| e.to_string())?),
            Schema::Array(array) => Node::Array(self.add(&array.items, namespace)?),
            Schema::Map(map) => Node::Map(self.add(&map.types, namespace)?),
            Schema::Union(union) => self.union(union.variants(), namespace)?,
            Schema::Record(record) => return self.record(record, namespace),
            Schema::Ref { name } => {
                let full_name = name.fullname(namespace);
                if let Some(&node) = self.records.get(&full_name) {
                    return Ok(node);
                }
                let target = self.names.get(name, namespace).ok_or("the writer's schema refers to an unknown name")?;
                return self.add(target, name.namespace().or(namespace));
            }
        };
        self.push(node)
    }

    fn union(&mut self, branches: &[Schema], namespace: Option<&str>) -> Result<Node, String> {
        let nodes = branches.iter().map(|branch| self.add(branch, namespace)).collect::<Result<Vec<_>, _>>()?;
        Ok(match branches {
            [Schema::Null, _] => Node::Optional { null_branch: 0, inner: nodes[1] },
            [_, Schema::Null] => Node::Optional { null_branch: 1, inner: nodes[0] },
            _ => Node::Union { start: self.list(&nodes), n_branches: nodes.len() as u32 },
        })
    }

    fn record(&mut self, record: &apache_avro::schema::RecordSchema, namespace: Option<&str>) -> Result<u32, String> {
        let node = self.push(Node::Null)?;
        // Known before its fields are: they may refer to it.
        self.records.insert(record.name.fullname(namespace), node);
        let inner = record.name.namespace().or(namespace);
        let fields = record.fields.iter().map(|field| self.add(&field.schema, inner)).collect::<Result<Vec<_>, _>>()?;
        self.nodes[node as usize] = Node::Record { start: self.list(&fields), n_fields: fields.len() as u32 };
        Ok(node)
    }

    fn list(&mut self, nodes: &[u32]) -> u32 {
        let start = self.children.len() as u32;
        self.children.extend_from_slice(nodes);
        start
    }
}

fn fixed_node(size: usize) -> Result<Node, String> {
    u32::try_from(size).map(Node::Fixed).map_err(|_| "a fixed is larger than 4 GiB".to_owned())
}

/// A walk over one body. Every read is checked.
pub(crate) struct Walker<'p, 'b> {
    program: &'p Program,
    rest: &'b [u8],
    n_empty_left: u32,
}

impl<'p, 'b> Walker<'p, 'b> {
    pub(crate) fn new(program: &'p Program, body: &'b [u8]) -> Walker<'p, 'b> {
        Walker { program, rest: body, n_empty_left: EMPTY_VALUES_MAX }
    }

    /// Whether the body has ended.
    #[inline]
    pub(crate) fn finish(&self) -> Result<(), Fault> {
        if self.rest.is_empty() {
            return Ok(());
        }
        Err(Fault { reason: RejectReason::TrailingBytes, what: "bytes follow the body", field_idx: None })
    }

    #[inline]
    pub(crate) fn value(&mut self, node: Node, depth: u32) -> Walked<()> {
        match node {
            Node::Null => Ok(()),
            Node::Bool => self.boolean().map(|_| ()),
            Node::Int => self.int().map(|_| ()),
            Node::Long => self.varint().map(|_| ()),
            Node::Fixed(n_bytes) => self.take(n_bytes as usize).map(|_| ()),
            Node::Bytes => self.bytes().map(|_| ()),
            Node::Str => self.string().map(|_| ()),
            Node::Enum(n_symbols) => match unzigzag(self.varint()?) {
                symbol if (0..i64::from(n_symbols)).contains(&symbol) => Ok(()),
                _ => Err(BAD_ENUM),
            },
            Node::Optional { null_branch, inner } => {
                if self.optional(null_branch * 2)? {
                    self.value(self.program.nodes[inner as usize], depth)
                } else {
                    Ok(())
                }
            }
            _ => self.nested(node, depth + 1),
        }
    }

    fn nested(&mut self, node: Node, depth: u32) -> Walked<()> {
        if depth > DEPTH_MAX {
            return Err(TOO_DEEP);
        }
        match node {
            Node::Union { start, n_branches } => {
                let branch = unzigzag(self.varint()?);
                if !(0..i64::from(n_branches)).contains(&branch) {
                    return Err(BAD_UNION);
                }
                let child = self.program.children[start as usize + branch as usize];
                self.value(self.program.nodes[child as usize], depth)
            }
            Node::Record { start, n_fields } => {
                let program = self.program;
                for &child in &program.children[start as usize..(start + n_fields) as usize] {
                    self.part(program.nodes[child as usize], depth)?;
                }
                Ok(())
            }
            Node::Array(item) => self.blocks(self.program.nodes[item as usize], false, depth),
            Node::Map(item) => self.blocks(self.program.nodes[item as usize], true, depth),
            leaf => self.value(leaf, depth),
        }
    }

    /// A field of a nested record or an item. What takes no bytes is counted: few bytes may stand for any number of it.
    #[inline]
    fn part(&mut self, node: Node, depth: u32) -> Walked<()> {
        let before = self.rest.len();
        self.value(node, depth)?;
        if self.rest.len() == before {
            self.n_empty_left = self.n_empty_left.checked_sub(1).ok_or(TOO_MANY_EMPTY)?;
        }
        Ok(())
    }

    fn blocks(&mut self, item: Node, has_keys: bool, depth: u32) -> Walked<()> {
        loop {
            let count = unzigzag(self.varint()?);
            if count == 0 {
                return Ok(());
            }
            let n_bytes = if count < 0 { Some(self.length()?) } else { None };
            let before = self.rest.len();
            for _ in 0..count.unsigned_abs() {
                if has_keys {
                    self.string()?;
                }
                self.part(item, depth)?;
            }
            if n_bytes.is_some_and(|n_bytes| n_bytes != before - self.rest.len()) {
                return Err(BAD_BLOCK);
            }
        }
    }

    #[inline]
    fn take(&mut self, n_bytes: usize) -> Walked<&'b [u8]> {
        let (taken, rest) = self.rest.split_at_checked(n_bytes).ok_or(TRUNCATED)?;
        self.rest = rest;
        Ok(taken)
    }

    #[inline]
    pub(crate) fn array<const N: usize>(&mut self) -> Walked<[u8; N]> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or(TRUNCATED)?;
        self.rest = rest;
        Ok(*taken)
    }

    #[inline]
    pub(crate) fn boolean(&mut self) -> Walked<bool> {
        match self.array::<1>()? {
            [0] => Ok(false),
            [1] => Ok(true),
            _ => Err(BAD_BOOL),
        }
    }

    #[inline]
    pub(crate) fn int(&mut self) -> Walked<i32> {
        match self.varint()? {
            // The zigzag form of an int has 32 bits.
            value @ 0..=0xffff_ffff => Ok(unzigzag(value) as i32),
            _ => Err(BAD_INT),
        }
    }

    /// Whether the branch of a union of two is the other than null, whose zigzag form is given: branch 0 is 0, 1 is 2.
    #[inline]
    pub(crate) fn optional(&mut self, null_branch_zigzag: u64) -> Walked<bool> {
        match self.varint()? {
            branch @ (0 | 2) => Ok(branch != null_branch_zigzag),
            _ => Err(BAD_UNION),
        }
    }

    #[inline]
    pub(crate) fn varint(&mut self) -> Walked<u64> {
        match *self.rest {
            [first, ref rest @ ..] if first < 0x80 => {
                self.rest = rest;
                Ok(u64::from(first))
            }
            _ => self.long_varint(),
        }
    }

    #[inline]
    fn long_varint(&mut self) -> Walked<u64> {
        let mut value = 0u64;
        for n_before in 0..10 {
            let &byte = self.rest.get(n_before).ok_or(TRUNCATED)?;
            if n_before == 9 && byte > 1 {
                break;
            }
            value |= u64::from(byte & 0x7f) << (7 * n_before);
            if byte < 0x80 {
                self.rest = &self.rest[n_before + 1..];
                return Ok(value);
            }
        }
        Err(BAD_VARINT)
    }

    #[inline]
    fn length(&mut self) -> Walked<usize> {
        match unzigzag(self.varint()?) {
            length @ 0..=0x7fff_ffff => Ok(length as usize),
            _ => Err(BAD_LENGTH),
        }
    }

    #[inline]
    fn bytes(&mut self) -> Walked<&'b [u8]> {
        let n_bytes = self.length()?;
        self.take(n_bytes)
    }

    #[inline]
    pub(crate) fn string(&mut self) -> Walked<&'b [u8]> {
        let bytes = self.bytes()?;
        if bytes.is_ascii() || std::str::from_utf8(bytes).is_ok() { Ok(bytes) } else { Err(BAD_UTF8) }
    }
}

#[inline]
pub(crate) const fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn program(avro: &str) -> Program {
        let schema = Schema::parse_str(avro).unwrap();
        Program::compile(&schema, &Names::collect(&schema, &[])).unwrap()
    }

    fn field(avro_type: &str) -> Program {
        program(&format!(r#"{{"type":"record","name":"r","fields":[{{"name":"a","type":{avro_type}}}]}}"#))
    }

    fn reason(program: &Program, body: &[u8]) -> Option<RejectReason> {
        program.walk(body).err().map(|fault| fault.reason)
    }

    #[test]
    fn each_fault_has_its_reason() {
        let malformed = Some(RejectReason::Malformed);
        let truncated = Some(RejectReason::Truncated);
        let trailing = Some(RejectReason::TrailingBytes);
        let cases: &[(&str, &[u8], Option<RejectReason>)] = &[
            (r#""boolean""#, &[1], None),
            (r#""boolean""#, &[2], malformed),
            (r#""int""#, &[0xff, 0xff, 0xff, 0xff, 0x0f], None),
            (r#""int""#, &[0xff, 0xff, 0xff, 0xff, 0x1f], malformed),
            (r#""long""#, &[0xff; 10], malformed),
            (r#""long""#, &[0xff; 3], truncated),
            (r#""string""#, &[4, b'a', b'b'], None),
            (r#""string""#, &[4, b'a'], truncated),
            (r#""string""#, &[1], malformed),
            (r#""string""#, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01], malformed),
            (r#""string""#, &[4, 0xc3, 0x28], malformed),
            (r#""bytes""#, &[4, 0xc3, 0x28], None),
            (r#""double""#, &[0; 7], truncated),
            (r#""double""#, &[0; 9], trailing),
            (r#"["null","int"]"#, &[0], None),
            (r#"["null","int"]"#, &[2, 2], None),
            (r#"["null","int"]"#, &[4], malformed),
            (r#"["int","null"]"#, &[2], None),
            (r#"["int","null"]"#, &[0, 2], None),
            (r#"["int","string","null"]"#, &[2, 2, b'a'], None),
            (r#"["int","string","null"]"#, &[6], malformed),
            (r#"["int","string","null"]"#, &[1], malformed),
            (r#"{"type":"enum","name":"e","symbols":["A","B"]}"#, &[2], None),
            (r#"{"type":"enum","name":"e","symbols":["A","B"]}"#, &[4], malformed),
            (r#"{"type":"array","items":"int"}"#, &[4, 0, 0, 0], None),
            (r#"{"type":"array","items":"int"}"#, &[3, 4, 0, 0, 0], None),
            (r#"{"type":"array","items":"int"}"#, &[3, 6, 0, 0, 0], malformed),
            (r#"{"type":"array","items":"int"}"#, &[4, 0], truncated),
            (r#"{"type":"array","items":"null"}"#, &[0xfe, 0xff, 0xff, 0xff, 0xff, 0x7f, 0], malformed),
            (r#"{"type":"map","values":"int"}"#, &[2, 2, b'k', 0, 0], None),
            (r#"{"type":"fixed","name":"f","size":3}"#, &[1, 2, 3], None),
            (r#"{"type":"fixed","name":"f","size":3}"#, &[1, 2], truncated),
        ];
        for (avro_type, body, expected) in cases {
            assert_eq!(reason(&field(avro_type), body), *expected, "{avro_type} {body:?}");
        }
    }

    #[test]
    fn recursion_is_bounded() {
        let list = program(r#"{"type":"record","name":"r","fields":[{"name":"next","type":["null","r"]}]}"#);
        assert_eq!(reason(&list, &[2, 2, 2, 0]), None);
        let mut deep = vec![2; 200];
        deep.push(0);
        assert_eq!(reason(&list, &deep), Some(RejectReason::Malformed));
        let endless = program(r#"{"type":"record","name":"r","fields":[{"name":"next","type":"r"}]}"#);
        assert_eq!(reason(&endless, &[]), Some(RejectReason::Malformed));
    }

    #[test]
    fn what_takes_no_bytes_is_bounded() {
        let nulls: Vec<_> = (0..1_000).map(|n| format!(r#"{{"name":"f{n}","type":"null"}}"#)).collect();
        let wide = format!(r#"{{"type":"record","name":"wide","fields":[{}]}}"#, nulls.join(","));
        let array = field(&format!(r#"{{"type":"array","items":{wide}}}"#));
        assert_eq!(reason(&array, &[80, 0]), None);
        assert_eq!(reason(&array, &[0x80, 0x80, 0x08, 0]), Some(RejectReason::Malformed));
        // As many items as one likes, where each takes a byte.
        let body = [&[0x80, 0x80, 0x10][..], &vec![0; 1 << 17], &[0]].concat();
        assert_eq!(reason(&field(r#"{"type":"array","items":"int"}"#), &body), None);
    }

    #[test]
    fn fields_are_told_apart() {
        let two = program(
            r#"{"type":"record","name":"r","fields":[{"name":"a","type":"string"},{"name":"b","type":["null","int"]}]}"#,
        );
        let mut ranges = Vec::new();
        two.walk_fields(&[4, b'x', b'y', 2, 5], |_, range| ranges.push(range)).unwrap();
        assert_eq!(ranges, [0..3, 3..5]);
    }
}
