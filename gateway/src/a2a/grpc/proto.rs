//! Messages of protobuf as the JSON that ProtoJSON makes of them, and back, by the table of
//! [`super::schema`]: what is done with a request is the same for every binding.
//!
//! What is not in the table is left out both ways, as protobuf asks for. Numbers of `google.protobuf.Value`
//! are doubles; one that is whole is written so.

use super::schema::{Field, Kind, Many, fields};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Map, Number, Value, json};

/// Values within values.
const DEPTH: usize = 64;
/// A whole number that every double holds exactly.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// Kinds of the wire.
const VARINT: u64 = 0;
const WIDE: u64 = 1;
const BYTES: u64 = 2;
const NARROW: u64 = 5;

/// Reads a message.
///
/// # Errors
/// What is wrong with it.
pub(super) fn read(message: &str, bytes: &[u8]) -> Result<Value, String> {
    inner(message, bytes, 0)
}

/// Writes one. What does not fit its field is left out.
pub(super) fn write(message: &str, value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    for field in fields(message) {
        match value.get(field.name) {
            None | Some(Value::Null) => {}
            Some(value) => field_of(&mut out, field, value),
        }
    }
    out
}

/// What a field had on the wire.
enum Wire<'b> {
    Varint(u64),
    Wide(u64),
    Bytes(&'b [u8]),
    Narrow,
}

/// Takes bytes from the front.
struct Reader<'b>(&'b [u8]);

impl<'b> Reader<'b> {
    fn varint(&mut self) -> Result<u64, String> {
        let mut value = 0u64;
        for at in 0..10 {
            let (byte, rest) = self.0.split_first().ok_or("a number breaks off")?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << (7 * at);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err("a number of more than ten bytes".into())
    }
    fn take(&mut self, n: u64) -> Result<&'b [u8], String> {
        let n = usize::try_from(n).map_err(|e| e.to_string())?;
        let (taken, rest) = self.0.split_at_checked(n).ok_or("a field breaks off")?;
        self.0 = rest;
        Ok(taken)
    }
    /// The next field's number and what it holds; nothing at the end.
    fn next(&mut self) -> Result<Option<(u32, Wire<'b>)>, String> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let number = u32::try_from(tag >> 3).map_err(|e| e.to_string())?;
        let wire = match tag & 7 {
            VARINT => Wire::Varint(self.varint()?),
            WIDE => {
                let bytes = self.take(8)?.try_into().unwrap_or_default();
                Wire::Wide(u64::from_le_bytes(bytes))
            }
            BYTES => {
                let length = self.varint()?;
                Wire::Bytes(self.take(length)?)
            }
            NARROW => {
                self.take(4)?;
                Wire::Narrow
            }
            other => return Err(format!("a field of kind {other}")),
        };
        Ok(Some((number, wire)))
    }
}

fn inner(message: &str, bytes: &[u8], depth: usize) -> Result<Value, String> {
    if depth > DEPTH {
        return Err("values within values within values".into());
    }
    let (mut out, mut reader) = (Map::new(), Reader(bytes));
    while let Some((number, wire)) = reader.next()? {
        let Some(field) = fields(message).iter().find(|field| field.number == number) else { continue };
        let named = |e: String| format!("{message}.{}: {e}", field.name);
        match field.many {
            Many::One => drop(out.insert(field.name.into(), single(field.kind, wire, depth).map_err(named)?)),
            Many::List => {
                let one = single(field.kind, wire, depth).map_err(named)?;
                if let Some(list) = out.entry(field.name).or_insert_with(|| json!([])).as_array_mut() {
                    list.push(one);
                }
            }
            Many::Map => {
                let Wire::Bytes(bytes) = wire else { return Err(named("no entry of a map".into())) };
                let (key, value) = entry(field.kind, bytes, depth).map_err(named)?;
                if let Some(map) = out.entry(field.name).or_insert_with(|| json!({})).as_object_mut() {
                    map.insert(key, value);
                }
            }
        }
    }
    Ok(Value::Object(out))
}

fn entry(kind: Kind, bytes: &[u8], depth: usize) -> Result<(String, Value), String> {
    let (mut key, mut value, mut reader) = (String::new(), None, Reader(bytes));
    while let Some((number, wire)) = reader.next()? {
        match (number, wire) {
            (1, Wire::Bytes(bytes)) => key = text(bytes)?,
            (2, wire) => value = Some(single(kind, wire, depth)?),
            _ => {}
        }
    }
    let empty = || match kind {
        Kind::Text => json!(""),
        Kind::Value => Value::Null,
        _ => json!({}),
    };
    Ok((key, value.unwrap_or_else(empty)))
}

fn text(bytes: &[u8]) -> Result<String, String> {
    String::from_utf8(bytes.to_vec()).map_err(|_| "a text that is no UTF-8".into())
}

fn single(kind: Kind, wire: Wire<'_>, depth: usize) -> Result<Value, String> {
    match (kind, wire) {
        (Kind::Text, Wire::Bytes(bytes)) => text(bytes).map(Value::from),
        (Kind::Bytes, Wire::Bytes(bytes)) => Ok(BASE64_STANDARD.encode(bytes).into()),
        (Kind::Bool, Wire::Varint(n)) => Ok((n != 0).into()),
        // What is negative has all its bits in front: the lower half says it.
        (Kind::Int, Wire::Varint(n)) => Ok(i64::from(n as u32 as i32).into()),
        (Kind::Enum(names), Wire::Varint(n)) => {
            let name = usize::try_from(n).ok().and_then(|n| names.get(n));
            Ok(name.map_or_else(|| n.into(), |name| (*name).into()))
        }
        (Kind::Time, Wire::Bytes(bytes)) => time(bytes),
        (Kind::Struct, Wire::Bytes(bytes)) => object(bytes, depth + 1),
        (Kind::Value, Wire::Bytes(bytes)) => any(bytes, depth + 1),
        (Kind::Message(name), Wire::Bytes(bytes)) => inner(name, bytes, depth + 1),
        _ => Err("it has the kind of another field".into()),
    }
}

fn time(bytes: &[u8]) -> Result<Value, String> {
    let (mut seconds, mut nanos, mut reader) = (0i64, 0i32, Reader(bytes));
    while let Some((number, wire)) = reader.next()? {
        match (number, wire) {
            (1, Wire::Varint(n)) => seconds = n as i64,
            (2, Wire::Varint(n)) => nanos = n as u32 as i32,
            _ => {}
        }
    }
    jiff::Timestamp::new(seconds, nanos).map(|at| at.to_string().into()).map_err(|e| e.to_string())
}

/// A `google.protobuf.Struct`.
fn object(bytes: &[u8], depth: usize) -> Result<Value, String> {
    let (mut out, mut reader) = (Map::new(), Reader(bytes));
    while let Some((number, wire)) = reader.next()? {
        if let (1, Wire::Bytes(bytes)) = (number, wire) {
            let (key, value) = entry(Kind::Value, bytes, depth)?;
            out.insert(key, value);
        }
    }
    Ok(Value::Object(out))
}

/// A `google.protobuf.Value`.
fn any(bytes: &[u8], depth: usize) -> Result<Value, String> {
    if depth > DEPTH {
        return Err("values within values within values".into());
    }
    let (mut out, mut reader) = (Value::Null, Reader(bytes));
    while let Some((number, wire)) = reader.next()? {
        out = match (number, wire) {
            (1, Wire::Varint(_)) => Value::Null,
            (2, Wire::Wide(bits)) => double(f64::from_bits(bits))?,
            (3, Wire::Bytes(bytes)) => text(bytes)?.into(),
            (4, Wire::Varint(n)) => (n != 0).into(),
            (5, Wire::Bytes(bytes)) => object(bytes, depth + 1)?,
            (6, Wire::Bytes(bytes)) => {
                let (mut list, mut reader) = (Vec::new(), Reader(bytes));
                while let Some((number, wire)) = reader.next()? {
                    if let (1, Wire::Bytes(bytes)) = (number, wire) {
                        list.push(any(bytes, depth + 1)?);
                    }
                }
                list.into()
            }
            _ => continue,
        };
    }
    Ok(out)
}

fn double(number: f64) -> Result<Value, String> {
    if number.fract() == 0.0 && number.abs() <= EXACT {
        // Whole and small by the line above.
        return Ok((number as i64).into());
    }
    Number::from_f64(number).map(Value::from).ok_or_else(|| "a number that JSON has not".into())
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn tag(out: &mut Vec<u8>, number: u32, wire: u64) {
    varint(out, (u64::from(number) << 3) | wire);
}

fn block(out: &mut Vec<u8>, number: u32, bytes: &[u8]) {
    tag(out, number, BYTES);
    varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn number_of(out: &mut Vec<u8>, number: u32, value: u64) {
    tag(out, number, VARINT);
    varint(out, value);
}

fn field_of(out: &mut Vec<u8>, field: &Field, value: &Value) {
    match field.many {
        Many::One => one(out, field.number, field.kind, value),
        Many::List => value.as_array().into_iter().flatten().for_each(|v| one(out, field.number, field.kind, v)),
        Many::Map => {
            for (key, value) in value.as_object().into_iter().flatten() {
                let mut entry = Vec::new();
                block(&mut entry, 1, key.as_bytes());
                one(&mut entry, 2, field.kind, value);
                block(out, field.number, &entry);
            }
        }
    }
}

fn one(out: &mut Vec<u8>, number: u32, kind: Kind, value: &Value) {
    match (kind, value) {
        (Kind::Text, Value::String(text)) => block(out, number, text.as_bytes()),
        (Kind::Bytes, Value::String(text)) => {
            if let Ok(bytes) = BASE64_STANDARD.decode(text) {
                block(out, number, &bytes);
            }
        }
        (Kind::Bool, Value::Bool(is)) => number_of(out, number, u64::from(*is)),
        (Kind::Int, Value::Number(n)) => {
            if let Some(n) = n.as_i64() {
                number_of(out, number, n as u64);
            }
        }
        (Kind::Enum(names), Value::String(name)) => {
            if let Some(n) = names.iter().position(|known| known == name) {
                number_of(out, number, n as u64);
            }
        }
        (Kind::Time, Value::String(text)) => {
            if let Ok(at) = text.parse::<jiff::Timestamp>() {
                let mut inner = Vec::new();
                number_of(&mut inner, 1, at.as_second() as u64);
                number_of(&mut inner, 2, i64::from(at.subsec_nanosecond()) as u64);
                block(out, number, &inner);
            }
        }
        (Kind::Struct, Value::Object(_)) => block(out, number, &written(value)),
        (Kind::Value, value) => {
            let mut inner = Vec::new();
            put_any(&mut inner, value);
            block(out, number, &inner);
        }
        (Kind::Message(name), value) => block(out, number, &write(name, value)),
        _ => {}
    }
}

/// An object as a `google.protobuf.Struct`.
fn written(object: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    for (key, value) in object.as_object().into_iter().flatten() {
        let (mut entry, mut inner) = (Vec::new(), Vec::new());
        block(&mut entry, 1, key.as_bytes());
        put_any(&mut inner, value);
        block(&mut entry, 2, &inner);
        block(&mut out, 1, &entry);
    }
    out
}

fn put_any(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Null => number_of(out, 1, 0),
        Value::Number(n) => {
            tag(out, 2, WIDE);
            out.extend_from_slice(&n.as_f64().unwrap_or_default().to_le_bytes());
        }
        Value::String(text) => block(out, 3, text.as_bytes()),
        Value::Bool(is) => number_of(out, 4, u64::from(*is)),
        Value::Object(_) => block(out, 5, &written(value)),
        Value::Array(list) => {
            let mut inner = Vec::new();
            for value in list {
                let mut one = Vec::new();
                put_any(&mut one, value);
                block(&mut inner, 1, &one);
            }
            block(out, 6, &inner);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_what_protobuf_makes_of_it() {
        // As protoc's own encoder writes it.
        let bytes = b"\x0a\x01m \x01*\x04\x0a\x02hi";
        let message = json!({ "messageId": "m", "role": "ROLE_USER", "parts": [{ "text": "hi" }] });
        assert_eq!(read("Message", bytes).unwrap(), message);
        assert_eq!(write("Message", &message), bytes);
    }

    #[test]
    fn what_is_written_is_read_again() {
        let task = json!({
            "id": "t", "contextId": "c",
            "status": { "state": "TASK_STATE_INPUT_REQUIRED", "timestamp": "2026-11-20T10:00:00.25Z",
                        "message": { "messageId": "q", "role": "ROLE_AGENT", "parts": [{ "text": "" }] } },
            "artifacts": [{ "artifactId": "a", "parts": [
                { "raw": "AAH/", "mediaType": "x/y", "filename": "f" },
                { "data": { "n": 1, "f": 1.5, "l": [null, true, -3, { "d": {} }], "big": 9_007_199_254_740_992_i64 } },
            ] }],
            "metadata": { "pleach/question": "x" },
        });
        assert_eq!(read("Task", &write("Task", &task)).unwrap(), task);
        let card = json!({ "name": "n", "capabilities": { "streaming": false },
            "securitySchemes": { "b": { "httpAuthSecurityScheme": { "scheme": "Bearer" } } },
            "securityRequirements": [{ "schemes": { "b": { "list": ["client"] } } }] });
        assert_eq!(read("AgentCard", &write("AgentCard", &card)).unwrap(), card);
        let list = json!({ "pageSize": -1, "status": "TASK_STATE_WORKING", "includeArtifacts": true });
        assert_eq!(read("ListTasksRequest", &write("ListTasksRequest", &list)).unwrap(), list);
    }

    #[test]
    fn what_is_not_known_is_left_out_and_what_is_broken_is_refused() {
        // Field 99, and an enum of a version to come.
        assert_eq!(read("GetTaskRequest", b"\x12\x01t\x98\x06\x05").unwrap(), json!({ "id": "t" }));
        assert_eq!(read("TaskStatus", b"\x08\x63").unwrap(), json!({ "state": 99 }));
        for broken in [&b"\x12"[..], b"\x12\x05t", b"\x12\xff", b"\x13", b"\x10\x01", b"\x12\x01\xff", &[0xff; 11]] {
            assert!(read("GetTaskRequest", broken).is_err(), "{broken:?}");
        }
        let mut deep = Vec::new();
        for _ in 0..1_000 {
            let (mut list, mut value) = (Vec::new(), Vec::new());
            block(&mut list, 1, &deep);
            block(&mut value, 6, &list);
            deep = value;
        }
        let mut part = Vec::new();
        block(&mut part, 4, &deep);
        assert!(read("Part", &part).unwrap_err().contains("within"));
    }
}
