//! Who a controller is at the API: the manager itself, or a ServiceAccount of its own
//! (`--use-service-account-credentials`).
//!
//! The manager's own identity may see everything and change next to nothing; it fills the caches and
//! asks for the accounts' tokens. What a controller writes, and what it reads apart from caches, is
//! done as its account: an audit log tells controllers apart, and a mistake in one of them cannot do
//! more than its role allows.

use component::client::{Account, Accounts};
use kube::Client;
use tokio_util::sync::CancellationToken;

/// Name in User-Agent, lease and events.
pub const COMPONENT: &str = "kube-controller-manager";
/// Namespace of the controllers' ServiceAccounts.
const NAMESPACE: &str = "kube-system";

/// One identity at the API.
#[derive(Clone)]
pub struct Identity {
    /// The API.
    pub client: Client,
    /// The API over a connection of its own, for many watches or bulk deletion.
    pub bulk: Client,
}

impl Identity {
    /// The identity of the kubeconfig that `api` was read from.
    ///
    /// # Errors
    /// When a certificate or key in it cannot be used.
    pub fn of_manager(api: &kube::Config) -> anyhow::Result<Self> {
        let connect = || component::client::from_config(api.clone(), COMPONENT);
        Ok(Self { client: connect()?, bulk: connect()? })
    }
}

/// Hands out the controllers' identities.
pub struct Identities {
    manager: Identity,
    accounts: Option<Accounts>,
}

impl Identities {
    /// One identity per controller, or the manager's for all. Tokens are renewed until `shutdown`.
    ///
    /// # Errors
    /// When the CA certificate in `api` cannot be used.
    pub fn new(
        api: &kube::Config,
        manager: Identity,
        account_per_controller: bool,
        shutdown: &CancellationToken,
    ) -> anyhow::Result<Self> {
        let accounts = account_per_controller
            .then(|| {
                let issuer = manager.client.clone();
                Accounts::new(api, COMPONENT, NAMESPACE, issuer, shutdown.clone())
            })
            .transpose()?;
        Ok(Self { manager, accounts })
    }

    /// The identity of the controllers whose ServiceAccount has this name, and the account whose
    /// token they have to wait for; none when they act as the manager.
    pub fn of(&self, account: &str) -> (Identity, Option<Account>) {
        let Some(accounts) = &self.accounts else { return (self.manager.clone(), None) };
        let account = accounts.get(account);
        let identity = Identity { client: account.client(), bulk: account.separate_client() };
        (identity, Some(account))
    }
}
