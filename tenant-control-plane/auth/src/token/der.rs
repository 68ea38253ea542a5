//! The few DER structures (ITU-T X.690) in which keys are written.

/// Splits `input` into the content of its first element, which must have the given tag, and what
/// follows it.
pub(super) fn element(tag: u8, input: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&found, rest) = input.split_first()?;
    let (&first, rest) = rest.split_first()?;
    if found != tag {
        return None;
    }
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81 | 0x82 => {
            let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (digits.iter().fold(0, |n, &d| n << 8 | usize::from(d)), rest)
        }
        _ => return None,
    };
    rest.split_at_checked(length)
}

/// Writes one element.
pub(super) fn encode(tag: u8, content: &[&[u8]]) -> Vec<u8> {
    let length: usize = content.iter().map(|part| part.len()).sum();
    let mut out = vec![tag];
    match length {
        0..=0x7f => out.push(length as u8),
        0x80..=0xff => out.extend([0x81, length as u8]),
        _ => out.extend([0x82, (length >> 8) as u8, length as u8]),
    }
    content.iter().for_each(|part| out.extend_from_slice(part));
    out
}

/// Tag of SEQUENCE.
pub(super) const SEQUENCE: u8 = 0x30;
/// Tag of INTEGER.
pub(super) const INTEGER: u8 = 0x02;
/// Tag of BIT STRING.
pub(super) const BIT_STRING: u8 = 0x03;
/// Tag of OCTET STRING.
pub(super) const OCTET_STRING: u8 = 0x04;

/// `AlgorithmIdentifier` of RSA keys (RFC 3279), whole.
pub(super) const RSA: &[u8] =
    &[0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00];
/// `AlgorithmIdentifier` of P-256 keys (RFC 5480), whole.
pub(super) const P256: &[u8] = &[
    0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48,
    0xce, 0x3d, 0x03, 0x01, 0x07,
];

/// `AlgorithmIdentifier` of P-384 keys (RFC 5480), whole.
pub(super) const P384: &[u8] = &[
    0x30, 0x10, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x05, 0x2b, 0x81, 0x04,
    0x00, 0x22,
];
/// `AlgorithmIdentifier` of Ed25519 keys (RFC 8410), whole.
pub(super) const ED25519: &[u8] = &[0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70];

/// A `SubjectPublicKeyInfo` (RFC 5280).
pub(super) fn public_key_info(algorithm: &[u8], key: &[u8]) -> Vec<u8> {
    encode(SEQUENCE, &[algorithm, &encode(BIT_STRING, &[&[0], key])])
}

/// Private scalar and public point of a SEC1 `ECPrivateKey` (RFC 5915).
pub(super) fn ec_private_key(input: &[u8]) -> Option<(&[u8], &[u8])> {
    let (body, _) = element(SEQUENCE, input)?;
    let (_version, rest) = element(INTEGER, body)?;
    let (private, mut rest) = element(OCTET_STRING, rest)?;
    if let Some((_curve, after)) = element(0xa0, rest) {
        rest = after;
    }
    let (tagged, _) = element(0xa1, rest)?;
    let (bits, _) = element(BIT_STRING, tagged)?;
    Some((private, bits.strip_prefix(&[0])?))
}

/// Modulus and exponent of an `RSAPublicKey` (RFC 8017), without leading zeros.
pub(super) fn rsa_public_key(input: &[u8]) -> Option<(&[u8], &[u8])> {
    let (body, _) = element(SEQUENCE, input)?;
    let (modulus, rest) = element(INTEGER, body)?;
    let (exponent, _) = element(INTEGER, rest)?;
    let plain = |n: &'_ [u8]| n.iter().position(|&b| b != 0).unwrap_or(n.len());
    Some((&modulus[plain(modulus)..], &exponent[plain(exponent)..]))
}
