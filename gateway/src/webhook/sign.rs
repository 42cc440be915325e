//! How a receiver knows that it is us, by a secret that both have.

use ring::hmac;

/// `t=…,v1=…`: HMAC-SHA256 over `t.body`, hexadecimal.
pub(crate) fn signature(secret: &str, seconds: u64, body: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let tag = hmac::sign(&key, format!("{seconds}.{body}").as_bytes());
    let hex: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("t={seconds},v1={hex}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_can_be_checked_by_others() {
        // printf '1.{}' | openssl dgst -sha256 -hmac 0123456789abcdef
        let signed = signature("0123456789abcdef", 1, "{}");
        assert!(signed.starts_with("t=1,v1=") && signed.len() == 7 + 64, "{signed}");
        assert_ne!(signed, signature("0123456789abcdef", 1, "{ }"));
    }
}
