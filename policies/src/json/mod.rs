//! JSON as a relay needs it: what was received is what is passed on.
//!
//! `serde_json` re-spells numbers (`1E2` becomes `100.0`), keeps the last of two equal keys
//! and recurses as deep as the input asks. A gateway that decides on one reading and forwards
//! another is a hole, so Pleach parses once into [`Json`], decides on that value, and forwards
//! that value re-serialised:
//!
//! * keys keep their order, numbers keep their text;
//! * a duplicate key is an error, never a silent choice;
//! * depth and size are bounded before anything is built;
//! * the input must be UTF-8 without lone surrogates (RFC 8259 section 8, RFC 7493 section 2.1).
//!
//! Whoever needs arithmetic or a schema check converts with [`Json::to_serde`].

mod parse;
mod scan;
mod write;

pub use parse::{JsonError, JsonErrorKind, Limits};
pub use write::digest;

/// A JSON value that keeps key order and the text of numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Json {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A number, as the text that was received. Always valid by RFC 8259 section 6.
    Number(Number),
    /// A string, unescaped.
    String(String),
    /// An array.
    Array(Vec<Json>),
    /// An object in the order it was received, without duplicate keys.
    Object(Object),
}

/// The text of a number. Only the parser and the integer conversions make one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Number(Box<str>);

impl Number {
    /// The number as it was written.
    pub fn lexeme(&self) -> &str {
        &self.0
    }
}

/// An ordered map without duplicate keys.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Object(Vec<(String, Json)>);

impl Object {
    /// Gives keys other names, in their places; a name that is taken gets a number.
    pub(crate) fn rename(&mut self, name: impl Fn(&str) -> Option<String>) {
        let mut changed: Vec<(usize, String)> = Vec::new();
        for (at, (key, _)) in self.0.iter().enumerate() {
            changed.extend(name(key).map(|name| (at, name)));
        }
        if changed.is_empty() {
            return;
        }
        let mut taken: std::collections::HashMap<String, usize> =
            self.0.iter().map(|(key, _)| (key.clone(), 1)).collect();
        for (at, name) in changed {
            let mut unique = name.clone();
            while taken.contains_key(&unique) {
                let count = taken.entry(name.clone()).or_insert(1);
                *count += 1;
                unique = format!("{name} {count}");
            }
            taken.insert(unique.clone(), 1);
            if let Some((key, _)) = self.0.get_mut(at) {
                *key = unique;
            }
        }
    }
    /// An empty object.
    pub fn new() -> Self {
        Self(Vec::new())
    }
    /// The value under `key`.
    pub fn get(&self, key: &str) -> Option<&Json> {
        self.0.iter().find(|(k, _)| k == key).map(|(_, v)| v)
    }
    /// The value under `key`, to change in place.
    pub fn get_mut(&mut self, key: &str) -> Option<&mut Json> {
        self.0.iter_mut().find(|(k, _)| k == key).map(|(_, v)| v)
    }
    /// Sets `key`, at its old place if it was there, else at the end.
    pub fn set(&mut self, key: impl Into<String>, value: impl Into<Json>) {
        let (key, value) = (key.into(), value.into());
        match self.get_mut(&key) {
            Some(slot) => *slot = value,
            None => self.0.push((key, value)),
        }
    }
    /// Removes `key`; the others keep their order.
    pub fn remove(&mut self, key: &str) -> Option<Json> {
        let at = self.0.iter().position(|(k, _)| k == key)?;
        Some(self.0.remove(at).1)
    }
    /// The entries in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Json)> {
        self.0.iter().map(|(k, v)| (k.as_str(), v))
    }
    /// The entries in order, to change their values in place.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (&str, &mut Json)> {
        self.0.iter_mut().map(|(k, v)| (k.as_str(), v))
    }
    /// The entries, in order.
    pub fn into_entries(self) -> impl Iterator<Item = (String, Json)> {
        self.0.into_iter()
    }
    /// Compact text, appended to `out`, without a copy of the values.
    pub fn write(&self, out: &mut String) {
        write::object(self, out);
    }
    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Json {
    /// An object from literal pairs.
    pub fn object<const N: usize>(pairs: [(&str, Json); N]) -> Json {
        let mut object = Object::new();
        for (key, value) in pairs {
            object.set(key, value);
        }
        Json::Object(object)
    }
    /// Parses one value that takes up the whole input.
    ///
    /// # Errors
    /// Anything that is not one well-formed value within `limits`, with the byte offset.
    pub fn parse(input: &[u8], limits: Limits) -> Result<Json, JsonError> {
        parse::parse(input, limits)
    }
    /// The object, if it is one.
    pub fn as_object(&self) -> Option<&Object> {
        match self {
            Json::Object(object) => Some(object),
            _ => None,
        }
    }
    /// The object, if it is one, to change in place.
    pub fn as_object_mut(&mut self) -> Option<&mut Object> {
        match self {
            Json::Object(object) => Some(object),
            _ => None,
        }
    }
    /// The array, if it is one.
    pub fn as_array(&self) -> Option<&[Json]> {
        match self {
            Json::Array(items) => Some(items),
            _ => None,
        }
    }
    /// The array, if it is one, to change in place.
    pub fn as_array_mut(&mut self) -> Option<&mut Vec<Json>> {
        match self {
            Json::Array(items) => Some(items),
            _ => None,
        }
    }
    /// The string, if it is one.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Json::String(text) => Some(text),
            _ => None,
        }
    }
    /// The truth value, if it is one.
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Json::Bool(value) => Some(*value),
            _ => None,
        }
    }
    /// The number, if it is a non-negative integer that fits.
    pub fn as_u64(&self) -> Option<u64> {
        match self {
            Json::Number(number) => number.lexeme().parse().ok(),
            _ => None,
        }
    }
    /// The number as a float, if it is one.
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Json::Number(number) => number.lexeme().parse().ok(),
            _ => None,
        }
    }
    /// The value under `key`, if this is an object that has it.
    pub fn get(&self, key: &str) -> Option<&Json> {
        self.as_object().and_then(|object| object.get(key))
    }
    /// The value at a JSON pointer (RFC 6901).
    pub fn pointer(&self, pointer: &str) -> Option<&Json> {
        if pointer.is_empty() {
            return Some(self);
        }
        pointer.strip_prefix('/')?.split('/').try_fold(self, |value, token| {
            let token = token.replace("~1", "/").replace("~0", "~");
            match value {
                Json::Object(object) => object.get(&token),
                Json::Array(items) => token.parse::<usize>().ok().and_then(|i| items.get(i)),
                _ => None,
            }
        })
    }
    /// Compact text; numbers as received.
    pub fn to_text(&self) -> String {
        let mut out = String::new();
        write::compact(self, &mut out);
        out
    }
    /// The same, appended to `out`.
    pub fn write(&self, out: &mut String) {
        write::compact(self, out);
    }
    /// Text with keys sorted at every level: equal for values that differ only in key order.
    /// This is what hashes are taken of.
    pub fn to_canonical(&self) -> String {
        let mut out = String::new();
        write::canonical(self, &mut out);
        out
    }
    /// The value for a schema check. A number that no `f64` holds becomes the nearest one.
    pub fn to_serde(&self) -> serde_json::Value {
        use serde_json::Value;
        match self {
            Json::Null => Value::Null,
            Json::Bool(value) => Value::Bool(*value),
            Json::Number(number) => {
                let text = number.lexeme();
                if let Ok(n) = text.parse::<i64>()
                    && text != "-0"
                {
                    n.into()
                } else if let Ok(n) = text.parse::<u64>() {
                    n.into()
                } else {
                    let n: f64 = text.parse().unwrap_or(f64::MAX);
                    n.clamp(f64::MIN, f64::MAX).into()
                }
            }
            Json::String(text) => Value::String(text.clone()),
            Json::Array(items) => Value::Array(items.iter().map(Json::to_serde).collect()),
            Json::Object(object) => Value::Object(object.0.iter().map(|(k, v)| (k.clone(), v.to_serde())).collect()),
        }
    }
}

/// Appends a string as JSON text.
pub fn quote(text: &str, out: &mut String) {
    write::string(text, out);
}

impl std::fmt::Display for Json {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.to_text())
    }
}
impl From<&serde_json::Value> for Json {
    fn from(value: &serde_json::Value) -> Self {
        use serde_json::Value;
        match value {
            Value::Null => Json::Null,
            Value::Bool(b) => Json::Bool(*b),
            Value::Number(n) => Json::Number(Number(n.to_string().into())),
            Value::String(s) => Json::String(s.clone()),
            Value::Array(items) => Json::Array(items.iter().map(Json::from).collect()),
            Value::Object(map) => Json::Object(Object(map.iter().map(|(k, v)| (k.clone(), v.into())).collect())),
        }
    }
}
impl From<serde_json::Value> for Json {
    fn from(value: serde_json::Value) -> Self {
        Json::from(&value)
    }
}
impl From<&str> for Json {
    fn from(text: &str) -> Self {
        Json::String(text.to_owned())
    }
}
impl From<String> for Json {
    fn from(text: String) -> Self {
        Json::String(text)
    }
}
impl From<bool> for Json {
    fn from(value: bool) -> Self {
        Json::Bool(value)
    }
}
impl FromIterator<(String, Json)> for Object {
    fn from_iter<T: IntoIterator<Item = (String, Json)>>(entries: T) -> Self {
        let mut object = Object::new();
        entries.into_iter().for_each(|(key, value)| object.set(key, value));
        object
    }
}
impl From<u64> for Json {
    fn from(value: u64) -> Self {
        Json::Number(Number(value.to_string().into()))
    }
}
impl From<i64> for Json {
    fn from(value: i64) -> Self {
        Json::Number(Number(value.to_string().into()))
    }
}
impl From<Vec<Json>> for Json {
    fn from(items: Vec<Json>) -> Self {
        Json::Array(items)
    }
}
impl From<Object> for Json {
    fn from(object: Object) -> Self {
        Json::Object(object)
    }
}
