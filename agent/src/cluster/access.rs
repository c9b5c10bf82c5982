//! Who may do what in the store: the administrator's own access, and the users that nodes get.

use etcd_client::{Client, Error, Permission, UserAddOptions};
use rand_core::{OsRng, RngCore as _};
use warren_overlay::record::NodeName;

use super::Access;
use super::fault::Fault;
use crate::config::{Config, Etcd};
use crate::registry::etcd::{Keys, end_of};

/// The flags, and for what they leave open the configuration file.
pub(super) fn resolve(access: Access, config: impl FnOnce() -> Result<Config, String>) -> Result<Etcd, String> {
    let base = if access.endpoints.is_empty() {
        let missing = || "no [etcd] in the configuration file: add it, or give --endpoints URL".to_owned();
        config().map_err(|error| format!("{error}; or give --endpoints URL"))?.etcd.ok_or_else(missing)?
    } else {
        Etcd {
            endpoints: access.endpoints,
            cluster: "default".to_owned(),
            ca_file: None,
            cert_file: None,
            key_file: None,
            username: None,
            password_file: None,
            password: None,
            lease_seconds: 60,
        }
    };
    if let Some(cluster) = &access.cluster {
        cluster.parse::<NodeName>().map_err(|error| format!("--cluster {cluster:?}: {error}"))?;
    }
    Ok(Etcd {
        cluster: access.cluster.unwrap_or(base.cluster),
        ca_file: access.ca_file.or(base.ca_file),
        cert_file: access.cert_file.or(base.cert_file),
        key_file: access.key_file.or(base.key_file),
        username: access.username.or(base.username),
        password_file: access.password_file.or(base.password_file),
        ..base
    })
}

/// `bytes` random bytes as hexadecimal digits.
pub(super) fn random_word(bytes: usize) -> String {
    let mut random = vec![0; bytes];
    OsRng.fill_bytes(&mut random);
    random.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The name of a node's user and role.
pub(super) fn user_of(name: &NodeName) -> String {
    format!("warren-{name}")
}

/// True when the store asks for users. Only its administrator may ask this way; others are told no, which means yes.
async fn is_enabled(client: &mut Client) -> bool {
    // Without authentication the list is empty, and a user `root` must exist with it.
    client.user_list().await.map_or(true, |list| list.users().iter().any(|user| user == "root"))
}

/// How the store shall know a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Login {
    /// It asks for no users.
    Open,
    /// By name and this password.
    Password(String),
    /// By a client certificate whose common name is the user's.
    Certificate,
}

/// Makes the node's user where the store asks for users, of the kind by which the administrator came.
pub(super) async fn log_in(client: &mut Client, keys: &Keys, etcd: &Etcd, name: &NodeName) -> Result<Login, Fault> {
    let login = match (&etcd.username, &etcd.cert_file) {
        (Some(_), _) => Login::Password(random_word(24)),
        (None, Some(_)) => Login::Certificate,
        (None, None) => return Ok(Login::Open),
    };
    if !is_enabled(client).await {
        return Ok(Login::Open);
    }
    add_user(client, keys, name, &login).await?;
    Ok(login)
}

/// Makes the node's user: it reads the whole cluster and writes its own record.
async fn add_user(client: &mut Client, keys: &Keys, name: &NodeName, login: &Login) -> Result<(), Fault> {
    let user = user_of(name);
    let refused = |what: &str, error: Error| Fault::Store(format!("etcd user {user}: {what}"), error);
    remove_user(client, name).await?;
    client.role_add(user.clone()).await.map_err(|error| refused("the role", error))?;
    let end = end_of(keys.prefix());
    for permission in [Permission::read(keys.prefix()).with_range_end(end), Permission::read_write(keys.node(name))] {
        client.role_grant_permission(user.clone(), permission).await.map_err(|error| refused("its rights", error))?;
    }
    let (password, options) = match login {
        Login::Password(password) => (password.clone(), None),
        _ => (String::new(), Some(UserAddOptions::new().with_no_pwd())),
    };
    client.user_add(user.clone(), password, options).await.map_err(|error| refused("the user", error))?;
    client.user_grant_role(user.clone(), user.clone()).await.map_err(|error| refused("its role", error))?;
    Ok(())
}

/// Removes the node's user and role, if there are any.
pub(super) async fn remove_user(client: &mut Client, name: &NodeName) -> Result<(), Fault> {
    let user = user_of(name);
    let gone = |result: Result<(), Error>| match result {
        Err(error) if !error.to_string().contains("not found") => {
            Err(Fault::Store(format!("etcd user {user} was not removed"), error))
        }
        _ => Ok(()),
    };
    gone(client.user_delete(user.clone()).await.map(|_| ()))?;
    gone(client.role_delete(user.clone()).await.map(|_| ()))
}
