//! Settings, checked.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use ipnet::Ipv4Net;
use machinery::ObjectSource;
use std::sync::Arc;

use crate::flags::Flags;
use crate::hooks::Hooks;
use auth::token::{Issuer, IssuerConfig, KeySet, SigningKey};
use auth::{AuthConfig, RequestHeaderConfig, ServiceAccountConfig};

/// Checked settings.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where to listen. Port 0: any.
    pub listen: SocketAddr,
    /// The port that others are told.
    pub secure_port: u16,
    /// The address that others are told.
    pub advertise_address: IpAddr,
    /// Cluster IPs.
    pub service_cidr: Ipv4Net,
    /// Node ports, first and last.
    pub node_ports: (u16, u16),
    /// Interval of compactions; zero: none.
    pub compaction: Duration,
    /// Time between failing readiness and stopping.
    pub shutdown_delay: Duration,
    /// `1.35`.
    pub emulated_version: String,
    /// Order of node addresses.
    pub kubelet_preferred_address_types: Vec<String>,
    /// The flags, for files and what needs no checking.
    pub flags: Flags,
}

/// Go's notation of durations: `1h30m`, `500ms`.
pub fn duration(text: &str) -> anyhow::Result<Duration> {
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let number: f64 = rest[..digits].parse().with_context(|| format!("duration {text:?}"))?;
        rest = &rest[digits..];
        let unit = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let seconds = match &rest[..unit] {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 0.001,
            "us" | "µs" => 1e-6,
            "ns" => 1e-9,
            "" if number == 0.0 => 0.0,
            other => bail!("duration {text:?}: unknown unit {other:?}"),
        };
        total += Duration::try_from_secs_f64(number * seconds)
            .with_context(|| format!("duration {text:?}"))?;
        rest = &rest[unit..];
    }
    Ok(total)
}

fn port_range(text: &str) -> anyhow::Result<(u16, u16)> {
    let context = || format!("service-node-port-range {text:?}");
    let (first, last) = text.split_once('-').with_context(context)?;
    let (first, last) = (first.parse().with_context(context)?, last.parse().with_context(context)?);
    ensure!(first > 0 && first <= last, context());
    Ok((first, last))
}

/// The address from which this machine reaches others.
fn own_address() -> std::io::Result<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    // Sends nothing; the kernel looks up the route to an address that is there for documentation.
    socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9))?;
    Ok(socket.local_addr()?.ip())
}

impl Config {
    /// Checks flags.
    pub fn from_flags(flags: Flags) -> anyhow::Result<Self> {
        ensure!(
            flags.etcd_prefix.trim_end_matches('/') == crate::store::ROOT,
            "etcd-prefix must be /registry"
        );
        ensure!(flags.service_account_lookup, "service-account-lookup cannot be turned off");
        let cidr = flags.service_cluster_ip_range.split(',').next().unwrap_or_default();
        let service_cidr: Ipv4Net =
            cidr.parse().with_context(|| format!("service-cluster-ip-range {cidr:?}"))?;
        ensure!(
            (8..=28).contains(&service_cidr.prefix_len()),
            "service-cluster-ip-range {cidr}: the prefix must be between /8 and /28"
        );
        let emulated_version = flags
            .emulated_version
            .clone()
            .unwrap_or_else(|| schema::Schema::versions().last().unwrap_or("1.35").to_owned());
        // Upstream also takes `kube=1.35`.
        let emulated_version =
            emulated_version.trim_start_matches("kube=").trim_start_matches('v').to_owned();
        let known: Vec<_> = schema::Schema::versions().collect();
        ensure!(
            known.contains(&emulated_version.as_str()),
            "emulated-version {emulated_version}: this release serves {}",
            known.join(", ")
        );
        let advertise_address = match flags.advertise_address {
            Some(address) => address,
            // Others do not reach it there, and no endpoint may have such an address.
            None if flags.bind_address.is_unspecified() || flags.bind_address.is_loopback() => {
                own_address().with_context(|| {
                    format!("advertise-address is needed: bind-address is {}", flags.bind_address)
                })?
            }
            None => flags.bind_address,
        };
        Ok(Self {
            listen: SocketAddr::new(flags.bind_address, flags.secure_port),
            secure_port: flags.secure_port,
            advertise_address,
            service_cidr: service_cidr.trunc(),
            node_ports: port_range(&flags.service_node_port_range)?,
            compaction: duration(&flags.etcd_compaction_interval)?,
            shutdown_delay: duration(&flags.shutdown_delay_duration)?,
            emulated_version,
            kubelet_preferred_address_types: flags.kubelet_preferred_address_types.clone(),
            flags,
        })
    }

    /// Where the token keys are published.
    pub fn jwks_uri(&self) -> String {
        self.flags.service_account_jwks_uri.clone().unwrap_or_else(|| {
            format!("https://{}:{}/openid/v1/jwks", self.advertise_address, self.secure_port)
        })
    }

    fn keys(&self) -> anyhow::Result<KeySet> {
        let files = &self.flags.service_account_key_file;
        let pems = files.iter().map(read).collect::<anyhow::Result<Vec<_>>>()?;
        KeySet::from_pems(pems).context("service-account-key-file")
    }

    /// The issuer of ServiceAccount tokens; `None` without a signing key.
    pub fn issuer(&self) -> anyhow::Result<Option<Issuer>> {
        let Some(path) = &self.flags.service_account_signing_key_file else { return Ok(None) };
        let signing_key =
            SigningKey::from_pem(&read(path)?).context("service-account-signing-key-file")?;
        let issuer = self
            .flags
            .service_account_issuer
            .first()
            .context("service-account-issuer is required")?;
        let max =
            self.flags.service_account_max_token_expiration.as_deref().map(duration).transpose()?;
        Ok(Some(Issuer::new(IssuerConfig {
            issuer: issuer.clone(),
            signing_key,
            keys: self.keys()?,
            api_audiences: self.flags.api_audiences.clone(),
            max_seconds: max.map_or(0, |d| d.as_secs() as i64),
            extend_expiration: self.flags.service_account_extend_token_expiration,
        })))
    }

    /// What the authenticator needs.
    pub fn auth(&self) -> anyhow::Result<AuthConfig> {
        let flags = &self.flags;
        let mut keys = self.keys()?;
        if let Some(path) = &flags.service_account_signing_key_file {
            keys.add(SigningKey::from_pem(&read(path)?)?.public().clone());
        }
        let has_issuer = !flags.service_account_issuer.is_empty();
        let service_account = has_issuer.then(|| ServiceAccountConfig {
            keys,
            issuers: flags.service_account_issuer.clone(),
            audiences: flags.api_audiences.clone(),
        });
        let everything = flags.authorization_mode.iter().any(|mode| mode == "AlwaysAllow");
        if flags.anonymous_auth && everything {
            tracing::warn!(
                "Requests without credentials are refused: authorization-mode AlwaysAllow would \
                 let anybody do everything."
            );
        }
        Ok(AuthConfig {
            anonymous: flags.anonymous_auth && !everything,
            client_ca_pem: flags.client_ca_file.as_ref().map(read).transpose()?,
            request_header: self.request_header()?,
            token_file: flags.token_auth_file.as_ref().map(text).transpose()?,
            service_account,
            bootstrap_tokens: flags.enable_bootstrap_token_auth,
        })
    }

    fn request_header(&self) -> anyhow::Result<Option<RequestHeaderConfig>> {
        let flags = &self.flags;
        let Some(path) = &flags.requestheader_client_ca_file else { return Ok(None) };
        let or = |given: &[String], default: &str| match given {
            [] => vec![default.to_owned()],
            given => given.to_vec(),
        };
        Ok(Some(RequestHeaderConfig {
            client_ca_pem: read(path)?,
            allowed_names: flags.requestheader_allowed_names.clone(),
            username_headers: or(&flags.requestheader_username_headers, "X-Remote-User"),
            uid_headers: vec!["X-Remote-Uid".to_owned()],
            group_headers: or(&flags.requestheader_group_headers, "X-Remote-Group"),
            extra_header_prefixes: or(&flags.requestheader_extra_headers_prefix, "X-Remote-Extra-"),
        }))
    }

    /// TLS towards etcd; `None` when all of its URLs are plain.
    pub fn etcd_tls(&self) -> anyhow::Result<Option<etcd_api::tls::ClientTls>> {
        let flags = &self.flags;
        let Some(ca) = &flags.etcd_cafile else { return Ok(None) };
        let identity = match (&flags.etcd_certfile, &flags.etcd_keyfile) {
            (Some(cert), Some(key)) => Some(etcd_api::tls::Identity::from_files(cert, key)?),
            (None, None) => None,
            _ => bail!("etcd-certfile and etcd-keyfile belong together"),
        };
        Ok(Some(etcd_api::tls::ClientTls { ca_pem: read(ca)?, identity }))
    }

    /// The way to kubelets, pods and Services.
    pub fn node_client(&self) -> anyhow::Result<Arc<streaming::NodeClient>> {
        let flags = &self.flags;
        let dialer = match &flags.egress_selector_config_file {
            Some(path) => streaming::egress::dialer_from_file(path, "cluster")?,
            None => streaming::Dialer::Direct,
        };
        let optional = |path: &Option<PathBuf>| path.as_ref().map(read).transpose();
        let tls = streaming::tls::KubeletTls {
            client_certificate_pem: optional(&flags.kubelet_client_certificate)?
                .unwrap_or_default(),
            client_key_pem: optional(&flags.kubelet_client_key)?.unwrap_or_default(),
            certificate_authority_pem: optional(&flags.kubelet_certificate_authority)?,
        };
        streaming::NodeClient::new(dialer, &tls)
    }

    /// What extension API servers are shown, if anything.
    pub fn proxy_client(&self) -> anyhow::Result<Option<streaming::tls::ProxyClient>> {
        match (&self.flags.proxy_client_cert_file, &self.flags.proxy_client_key_file) {
            (Some(cert), Some(key)) => {
                Ok(Some(streaming::tls::ProxyClient::new(&read(cert)?, &read(key)?)?))
            }
            (None, None) => Ok(None),
            _ => bail!("proxy-client-cert-file and proxy-client-key-file belong together"),
        }
    }

    /// True unless an admission plugin that is on by default was turned off.
    pub fn has_plugin(&self, name: &str) -> bool {
        !self.flags.disable_admission_plugins.iter().any(|disabled| disabled == name)
    }

    /// The webhooks that take part in admission, and the way to them.
    pub fn hooks(&self) -> anyhow::Result<Hooks> {
        let flags = &self.flags;
        let (services, urls) = match &flags.egress_selector_config_file {
            Some(path) => (
                streaming::egress::dialer_from_file(path, "cluster")?,
                streaming::egress::url_dialer_from_file(path)?,
            ),
            None => (streaming::Dialer::Direct, streaming::Dialer::Direct),
        };
        Ok(Hooks::new(
            streaming::HookClient::new(services, urls),
            self.has_plugin("MutatingAdmissionWebhook"),
            self.has_plugin("ValidatingAdmissionWebhook"),
        ))
    }

    /// The admission chain.
    pub fn admission(
        &self,
        source: Arc<dyn ObjectSource>,
        authorizer: Arc<auth::Authorizer>,
    ) -> anyhow::Result<admission::Chain> {
        let access = move |user: &machinery::UserInfo, request: &machinery::RequestInfo| {
            authorizer.authorize(user, request).is_allowed()
        };
        let flags = &self.flags;
        let (enable, disable) = (&flags.enable_admission_plugins, &flags.disable_admission_plugins);
        Ok(admission::Chain::new(enable, disable, source, Arc::new(access))?)
    }
}

fn read(path: &PathBuf) -> anyhow::Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("reading {}", path.display()))
}

fn text(path: &PathBuf) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_everything_is_allowed_nobody_is_anonymous() {
        use clap::Parser;
        let anonymous = |modes: &str| {
            let given = ["x", "--etcd-servers=http://127.0.0.1:1", "--bind-address=192.0.2.1"];
            let files = ["--tls-cert-file=c", "--tls-private-key-file=k", "--authorization-mode"];
            let flags = Flags::parse_from(given.into_iter().chain(files).chain([modes]));
            Config::from_flags(flags).unwrap().auth().unwrap().anonymous
        };
        assert!(anonymous("Node,RBAC"));
        assert!(!anonymous("RBAC,AlwaysAllow"));
    }

    #[test]
    fn durations_and_ranges() {
        assert_eq!(duration("1h30m").unwrap(), Duration::from_secs(5400));
        assert_eq!(duration("1.5s").unwrap(), Duration::from_millis(1500));
        assert_eq!(duration("0").unwrap(), Duration::ZERO);
        assert!(duration("5").is_err() && duration("x").is_err());
        assert_eq!(port_range("30000-32767").unwrap(), (30000, 32767));
        assert!(port_range("5-1").is_err());
    }
}
