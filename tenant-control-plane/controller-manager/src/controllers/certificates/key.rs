//! The CA's private key, in any of the three notations that upstream reads.

use anyhow::{Context as _, anyhow, bail};
use rcgen::KeyPair;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject as _;
use yasna::Tag;
use yasna::models::ObjectIdentifier;

const RSA: &[u64] = &[1, 2, 840, 113_549, 1, 1, 1];
const ELLIPTIC: &[u64] = &[1, 2, 840, 10045, 2, 1];

/// Reads the first private key of a PEM text: PKCS #8, PKCS #1 (`RSA PRIVATE KEY`, which kubeadm
/// writes) or SEC 1 (`EC PRIVATE KEY`). Text around it is allowed.
pub(super) fn from_pem(text: &str) -> anyhow::Result<KeyPair> {
    let key = PrivateKeyDer::from_pem_slice(text.as_bytes())
        .map_err(|error| anyhow!("no private key in PEM: {error}"))?;
    let der = match &key {
        PrivateKeyDer::Pkcs8(key) => key.secret_pkcs8_der().to_vec(),
        PrivateKeyDer::Pkcs1(key) => wrap(RSA, None, key.secret_pkcs1_der()),
        PrivateKeyDer::Sec1(key) => {
            let curve = curve(key.secret_sec1_der()).context("the key names no curve")?;
            wrap(ELLIPTIC, Some(&curve), key.secret_sec1_der())
        }
        _ => bail!("the key's notation is not known"),
    };
    Ok(KeyPair::try_from(der.as_slice())?)
}

/// PrivateKeyInfo of RFC 5208; without a curve, the algorithm's parameters are NULL.
fn wrap(algorithm: &[u64], curve: Option<&ObjectIdentifier>, key: &[u8]) -> Vec<u8> {
    yasna::construct_der(|writer| {
        writer.write_sequence(|writer| {
            writer.next().write_u8(0);
            writer.next().write_sequence(|writer| {
                writer.next().write_oid(&ObjectIdentifier::from_slice(algorithm));
                match curve {
                    Some(curve) => writer.next().write_oid(curve),
                    None => writer.next().write_null(),
                }
            });
            writer.next().write_bytes(key);
        });
    })
}

/// The parameters of an ECPrivateKey (RFC 5915).
fn curve(key: &[u8]) -> anyhow::Result<ObjectIdentifier> {
    let curve = yasna::parse_der(key, |reader| {
        reader.read_sequence(|reader| {
            reader.next().read_i64()?;
            reader.next().read_bytes()?;
            let curve = reader.next().read_tagged(Tag::context(0), |reader| reader.read_oid())?;
            reader.read_optional(|reader| reader.read_der())?;
            Ok(curve)
        })
    });
    curve.map_err(|error| anyhow!("{error}"))
}

#[cfg(test)]
mod tests {
    use rcgen::PublicKeyData as _;

    use super::*;

    // Made for this test; they belong to nobody.
    const PKCS1: &str = "\
-----BEGIN RSA PRIVATE KEY-----
MIIEowIBAAKCAQEAqvtzHbGiJKq4WXxViA2par0IaQXOv0Zjv2auxV3o1XDsNEzk
osu10IE864BCFvCKMDzQ3JqJtNfc+5dG8M6kkhmfc/JmQ/0zAasydfIAAlW0mfbK
42/XMbcfSqab94J236AZuaaMCXXDsAzYZ2gb3Tqs7aneXjqhloUOB7G4P7roO8rc
YNrHxKBDpH3cR879DkWO4L8mUJiLGSOntJ0vPsmbIHXAKKceFNhbyAwu9SIlNFDk
CcUVYRw83OpPQO8Y1T0Z/QfhOkmxH0Az0PfQMK/vtS8LCMOu2Yygd0uqJIsXm6wq
d8a93bD1nAqih2VoZD/xgTZhVydWQY0rmqaX+wIDAQABAoIBAAxu01yV5Znv9g6/
vUJy595Ul493diSvfCJXV58PaJZYqzxUWQ3DbVmXhDQFtAiR/iJq0a8w55GIXs/G
nMh25j2fclpOhoQsHbDh3333FmwVClhluzQVllrNm49klRPG31j8fdJjm2w2rX+Y
N4YxalFIanmvr/U/Iy/cRfxmPmUX1hH2B8NFR213VM1xkDZxSZ5b+rWc68kMRwRJ
2/3TYWaxaxJXAqOrcxFoYjWL/dKTzfVyz/9hdLwWG9NErNBT+Dz0SIgmp3GXbSs6
iHUNG5XhWrNI7Lv2Sc6uwHHvwKgKQ5md6B95FhD5041NNqhtcMK2TIUh8Wi1HqpA
KHNRc8ECgYEA7J3PLQTGPyl/BYkbhhksPT9FnWRd99nUN0CRvWLCZJdcCWpOJEnk
DoRpiardYASDKZkI9k5U8qG7QE6gQpPsshZKWhGd2xfpwe0BTbqtrF16SCgSWUTG
VkW+IeHinuF0jEmHP1V9J35Fb2iaDRcHbB/2jcTMwShw9ht6GXtbWEECgYEAuP0y
CXwYQagCNIe3cluScS6rOVuF7ln4TC/6aVRVJv5o0+FJeudTT8Q/dfZHePww1EU1
NdcURPAOnM65yBNv56ZX9TZ6Inwlm6CZ+FjfEdtFTzO+Oky0U6nh05yEfViwA10F
pBHPq0QpxSc7MFTUpD0/CT/P9YH52qLSDzkBATsCgYEAv9RA/nJ8dwChZk997P3D
i/Qb8DpKpIIJNrI2dZ/3ka3UhB2XNHxjVBGtrlrEFvARlkvnpChlXkAYm04jR1a9
8rN3nAXkQJfmf74x7F6IJtGyLYWvOogzdAYe20FShRSrdIC4EXSxfq80g9n96tbc
waA4Nz9x8LdkvWIRX09PAwECgYAOEixRLmBF9jqctkoM58w+0bbyePS6CZvqZ6fb
hS+o9KcSnstRDvF2Ws4c8evD1yL7snv2qXKAP+ZMpSjagCf97dg47bjikKDnspKj
olbta8lc2em5U4ZP6tcjmn81bZ6N0vCP507tjxTCS1akOX+nMoVt9a2i1g0kRUhH
IiXiawKBgD4EuwSddwx2vK8lXO/Ga7eaBX3y7UdF2NzY1jodGaeOhkZ258PDcc7L
al4mjvvS3W0OCk7p/2ObGCc/nEtC1q2rbHVKBcIxsCzmx5FwsbTSkEZetJZjwrmc
/7XB2QXLYj6bJPUw0+TylzLTK2rMS1rC/4oS4O1kZmZXTWUh4UC/
-----END RSA PRIVATE KEY-----
";
    const SEC1: &str = "\
-----BEGIN EC PRIVATE KEY-----
MHcCAQEEIFJf08vMKSzd6UkwkNCChM3RwEv7q0ujh93EibxKuoaVoAoGCCqGSM49
AwEHoUQDQgAEVxajm5aNhLhoSIaoCxrh94E0929lbejeAiRTvqD6Vy/+OmlSneaX
gRyyW5SXIZp6aDf1axzv8httsUG84ld5ZQ==
-----END EC PRIVATE KEY-----
";
    const PKCS8: &str = "\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgUl/Ty8wpLN3pSTCQ
0IKEzdHAS/urS6OH3cSJvEq6hpWhRANCAARXFqOblo2EuGhIhqgLGuH3gTT3b2Vt
6N4CJFO+oPpXL/46aVKd5peBHLJblJchmnpoN/VrHO/yG22xQbziV3ll
-----END PRIVATE KEY-----
";

    #[test]
    fn the_notations_of_one_key_are_the_same_key() {
        let sec1 = from_pem(SEC1).unwrap();
        let pkcs8 = from_pem(PKCS8).unwrap();
        assert_eq!(sec1.subject_public_key_info(), pkcs8.subject_public_key_info());
    }

    #[test]
    fn text_may_stand_around_a_key() {
        let key = from_pem(&format!("a key for tests\n\n{PKCS1}\nthe end\n")).unwrap();
        assert_eq!(key.algorithm(), &rcgen::PKCS_RSA_SHA256);
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let damaged = PKCS1.replace("MII", "AII");
        for text in ["", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", &damaged] {
            assert!(from_pem(text).is_err(), "{text}");
        }
    }
}
