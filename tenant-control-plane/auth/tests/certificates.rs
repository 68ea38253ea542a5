//! Client certificates and front proxies: what the TLS layer hands over is not verified yet.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;

use auth::{AuthConfig, Authenticator, RequestHeaderConfig};
use http::HeaderMap;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, date_time_ymd,
};
use rustls_pki_types::CertificateDer;
use support::{Objects, headers};

fn authority(name: &str) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn certificate(
    authority: &CertifiedIssuer<'static, KeyPair>,
    name: &str,
    groups: &[&str],
    usage: ExtendedKeyUsagePurpose,
) -> CertificateDer<'static> {
    signed(authority, params(name, groups, usage))
}

fn params(name: &str, groups: &[&str], usage: ExtendedKeyUsagePurpose) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    // The builder keeps one value per type; the same type by its number makes room for another.
    let types = [DnType::OrganizationName, DnType::CustomDnType(vec![2, 5, 4, 10])];
    for (group, dn_type) in groups.iter().zip(types) {
        params.distinguished_name.push(dn_type, *group);
    }
    params.extended_key_usages = vec![usage];
    params
}

fn signed(
    authority: &CertifiedIssuer<'static, KeyPair>,
    params: CertificateParams,
) -> CertificateDer<'static> {
    let key = KeyPair::generate().unwrap();
    params.signed_by(&key, authority).unwrap().der().clone()
}

#[test]
fn a_certificate_names_user_and_group_only_when_the_right_authority_signed_it() {
    let (clients, proxies, other) = (authority("a"), authority("b"), authority("c"));
    let config = AuthConfig {
        anonymous: true,
        client_ca_pem: Some(clients.pem().into_bytes()),
        request_header: Some(RequestHeaderConfig {
            client_ca_pem: proxies.pem().into_bytes(),
            allowed_names: vec!["front-proxy".into()],
            username_headers: vec!["X-Remote-User".into()],
            group_headers: vec!["X-Remote-Group".into()],
            extra_header_prefixes: vec!["X-Remote-Extra-".into()],
            ..RequestHeaderConfig::default()
        }),
        ..AuthConfig::default()
    };
    let authenticator = Authenticator::new(config, Arc::new(Objects::default())).unwrap();
    let client = ExtendedKeyUsagePurpose::ClientAuth;
    let none = HeaderMap::new();

    let jane = certificate(&clients, "jane", &["dev", "ops"], client.clone());
    for _ in 0..2 {
        let found =
            authenticator.authenticate(&none, std::slice::from_ref(&jane)).unwrap().unwrap();
        assert_eq!(found.name, "jane");
        assert_eq!(found.groups, ["dev", "ops", "system:authenticated"]);
    }
    let server = certificate(&clients, "jane", &[], ExtendedKeyUsagePurpose::ServerAuth);
    let foreign = certificate(&other, "jane", &[], client.clone());
    let nameless = certificate(&clients, "", &["system:masters"], client.clone());
    for refused in [server, foreign, nameless] {
        assert_eq!(authenticator.authenticate(&none, &[refused]).unwrap_err().code, 401);
    }

    let anonymous = authenticator.authenticate(&none, &[]).unwrap().unwrap();
    assert_eq!(anonymous.name, "system:anonymous");

    let remote = headers(&[
        ("x-remote-user", "bob"),
        ("x-remote-group", "one"),
        ("x-remote-group", "two"),
        ("x-remote-extra-acme.com%2fproject", "p"),
    ]);
    let proxy = certificate(&proxies, "front-proxy", &[], client.clone());
    let found = authenticator.authenticate(&remote, &[proxy]).unwrap().unwrap();
    assert_eq!((found.name.as_str(), found.groups.len()), ("bob", 3));
    assert_eq!(found.extra["acme.com/project"], ["p"]);
    // A client cannot pass itself off as a proxy, nor a proxy as a client.
    let found = authenticator.authenticate(&remote, &[jane]).unwrap().unwrap();
    assert_eq!(found.name, "jane");
    for name in ["front-proxy", "stranger"] {
        let proxy = certificate(&proxies, name, &["system:masters"], client.clone());
        let headers = if name == "stranger" { &remote } else { &none };
        assert_eq!(authenticator.authenticate(headers, &[proxy]).unwrap_err().code, 401);
    }
}

#[test]
fn a_chain_that_does_not_verify_is_nobody_and_never_anonymous() {
    let (clients, other) = (authority("a"), authority("b"));
    let config = AuthConfig {
        anonymous: true,
        client_ca_pem: Some(clients.pem().into_bytes()),
        ..AuthConfig::default()
    };
    let authenticator = Authenticator::new(config, Arc::new(Objects::default())).unwrap();
    let code = |chain: &[CertificateDer<'_>]| {
        authenticator
            .authenticate(&HeaderMap::new(), chain)
            .map_or_else(|status| status.code, |_| 200)
    };
    let admin = || params("admin", &["system:masters"], ExtendedKeyUsagePurpose::ClientAuth);
    let within = |from: i32, until: i32| {
        let mut params = admin();
        params.not_before = date_time_ymd(from, 1, 1);
        params.not_after = date_time_ymd(until, 1, 1);
        signed(&clients, params)
    };
    let right = signed(&clients, admin());
    let foreign = signed(&other, admin());
    let garbage = CertificateDer::from(vec![0x30, 0x03, 0x02, 0x01, 0x00]);
    assert_eq!(code(std::slice::from_ref(&right)), 200);
    for chain in [
        vec![within(2020, 2021)],
        vec![within(2200, 2201)],
        vec![foreign.clone()],
        vec![foreign.clone(), right.clone()],
        vec![foreign, other.der().clone()],
        vec![garbage],
    ] {
        // Twice: a refused certificate is not remembered as a verified one.
        assert_eq!((code(&chain), code(&chain)), (401, 401));
    }
}
