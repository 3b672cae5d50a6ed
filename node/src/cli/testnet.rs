//! `polder testnet`: keys and files for a cluster on this machine.

use std::collections::BTreeSet;
use std::fs;
use std::net::{TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use polder_types::{
    ClientAccess, ClientKey, ClusterFile, Constants, FaultModel, Nonce, PublicKey, Quorum, ReplicaEntry, ReplicaId,
    Role, SigningKey,
};

use crate::files::{Readers, make_folder, write_durably, write_key};
use crate::identity::IdentityFile;

/// Makes keys and configuration files for a cluster on this machine
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  polder testnet --replicas 4 --fault-model byzantine --dir net
  polder testnet --replicas 6 --fault-model hybrid --byzantine 1 --dir net
  polder testnet --closed --dir net

It writes DIR/cluster.toml and DIR/client.key for clients, and for each replica DIR/node-I with node.toml, its keys
and a data folder. Then: polder cluster --dir net

Until the first start DIR/cluster.toml may be edited, for all replicas alike; from then on all but the addresses is fixed.")]
pub(super) struct Testnet {
    /// How many replicas
    #[arg(long, value_name = "N", default_value_t = 4)]
    replicas: usize,
    /// What may go wrong: byzantine (a third may lie), crash (nobody lies), hybrid (some lie, more crash)
    #[arg(long, value_name = "MODEL", default_value = "byzantine")]
    fault_model: Model,
    /// How many may lie, with the hybrid model
    #[arg(long, value_name = "R")]
    byzantine: Option<u8>,
    /// A new or empty folder
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// Replica I listens on UDP port P+2I, its admin on TCP port P+2I+1 [default: free ports]
    #[arg(long, value_name = "P")]
    base_port: Option<u16>,
    /// Only DIR/client.key and the keys of --client-key may connect; without it anybody may, and write
    #[arg(long)]
    closed: bool,
    /// With --closed, a client's public key that may write besides; may be repeated (keygen prints such keys)
    #[arg(long, value_name = "HEX", requires = "closed", value_parser = public_key)]
    client_key: Vec<PublicKey>,
}

fn public_key(hex: &str) -> Result<PublicKey, &'static str> {
    PublicKey::from_hex(hex).ok_or("a public key is 64 hexadecimal digits, as keygen prints them")
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Model {
    Byzantine,
    Crash,
    Hybrid,
}

/// The keys of a replica.
struct Keys {
    identity: SigningKey,
    signing: SigningKey,
}

impl Testnet {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let fault_model = match (self.fault_model, self.byzantine) {
            (Model::Byzantine, None) => FaultModel::Byzantine,
            (Model::Crash, None) => FaultModel::Crash,
            (Model::Hybrid, Some(byzantine)) => FaultModel::Hybrid { byzantine },
            (Model::Hybrid, None) => bail!("the hybrid model needs --byzantine R: how many may lie"),
            (_, Some(_)) => bail!("--byzantine R goes with --fault-model hybrid only"),
        };
        let quorum = Quorum::new(self.replicas, fault_model)?;
        if self.dir.exists() && fs::read_dir(&self.dir)?.next().is_some() {
            bail!("{} is not empty: name a new folder, or remove what is in it", self.dir.display());
        }
        let ports = match self.base_port {
            Some(base) => ports_from(base, self.replicas)?,
            None => free_ports(self.replicas)?,
        };
        let keys: Vec<Keys> = (0..self.replicas)
            .map(|_| Ok(Keys { identity: super::random_key()?, signing: super::random_key()? }))
            .collect::<anyhow::Result<_>>()?;
        let client = super::random_key()?;
        let cluster = cluster_file(fault_model, &keys, &ports, quorum, self.clients(&client))?;
        cluster.genesis().check()?;
        make_folder(&self.dir, Readers::All)?;
        write_durably(&self.dir.join("cluster.toml"), cluster_text(&cluster)?.as_bytes(), Readers::All)?;
        write_key(&self.dir.join("client.key"), &client)?;
        for (replica, (keys, ports)) in (0u8..).zip(keys.iter().zip(&ports)) {
            write_node(&self.dir.join(format!("node-{replica}")), ReplicaId(replica), keys, *ports, &cluster)?;
        }
        self.print(quorum)?;
        Ok(ExitCode::SUCCESS)
    }

    /// Who may connect: anybody, or the key that is made here and those that were named.
    fn clients(&self, own: &SigningKey) -> ClientAccess {
        let mut keys = Vec::new();
        if self.closed {
            let all: BTreeSet<PublicKey> = self.client_key.iter().copied().chain([own.public()]).collect();
            keys.extend(all.into_iter().map(|key| ClientKey { key, role: Role::Write }));
        }
        ClientAccess { open: !self.closed, keys }
    }

    fn print(&self, quorum: Quorum) -> anyhow::Result<()> {
        let dir = self.dir.display();
        super::say(summary(quorum))?;
        super::say(if self.closed {
            format!("Only {dir}/client.key and the keys in [[clients.keys]] of {dir}/cluster.toml may write.")
        } else {
            format!("Anybody who reaches the replicas may write: clients.open = true in {dir}/cluster.toml.")
        })?;
        super::say(format_args!("Next: {} cluster --dir {dir}", super::program()))
    }
}

/// What may fail, in words.
fn summary(quorum: Quorum) -> String {
    format!(
        "{} replicas, of which {} may fail, of which {} may lie; a quorum is {}.",
        quorum.replicas(),
        quorum.faults(),
        quorum.liars(),
        quorum.quorum()
    )
}

/// The UDP and the TCP port of each replica.
type Ports = (u16, u16);

fn ports_from(base: u16, replicas: usize) -> anyhow::Result<Vec<Ports>> {
    let port = |offset: usize| u16::try_from(usize::from(base) + offset);
    let ports: Result<_, _> = (0..replicas).map(|replica| Ok((port(2 * replica)?, port(2 * replica + 1)?))).collect();
    ports.map_err(|_: std::num::TryFromIntError| {
        anyhow::anyhow!("--base-port {base} leaves no room for {replicas} replicas below port 65536")
    })
}

/// Ports that are free now. Held until all are found, so that they differ.
fn free_ports(replicas: usize) -> anyhow::Result<Vec<Ports>> {
    let sockets: Vec<(UdpSocket, TcpListener)> = (0..replicas)
        .map(|_| Ok((UdpSocket::bind(("127.0.0.1", 0))?, TcpListener::bind(("127.0.0.1", 0))?)))
        .collect::<std::io::Result<_>>()
        .context("no free ports")?;
    let ports = sockets.iter().map(|(udp, tcp)| Ok((udp.local_addr()?.port(), tcp.local_addr()?.port())));
    ports.collect::<std::io::Result<_>>().context("no free ports")
}

fn cluster_file(
    fault_model: FaultModel,
    keys: &[Keys],
    ports: &[Ports],
    quorum: Quorum,
    clients: ClientAccess,
) -> anyhow::Result<ClusterFile> {
    let mut nonce = [0; 16];
    getrandom::fill(&mut nonce)?;
    let replicas = keys.iter().zip(ports).map(|(keys, (udp, _))| ReplicaEntry {
        address: format!("127.0.0.1:{udp}"),
        identity: keys.identity.public(),
        signing: keys.signing.public(),
    });
    Ok(ClusterFile {
        nonce: Nonce(nonce),
        fault_model,
        constants: constants_for(quorum),
        clients,
        replicas: replicas.collect(),
    })
}

/// The default constants, with a smaller window where a NEW-VIEW of so many replicas would not fit (R13).
fn constants_for(quorum: Quorum) -> Constants {
    let mut constants = Constants::default();
    while constants.window_slots > 2 && constants.new_view_bytes(quorum) > Constants::NEW_VIEW_BYTES_MAX {
        constants.window_slots /= 2;
    }
    constants.interval_slots = constants.interval_slots.min(constants.window_slots / 2);
    constants.fresh_slots_max = constants.fresh_slots_max.min(constants.window_slots);
    constants
}

fn cluster_text(cluster: &ClusterFile) -> anyhow::Result<String> {
    let body = toml::to_string(cluster)?;
    Ok(format!(
        "# The cluster, as its replicas and clients know it. It is public: no secret is in it.\n\
         # All replicas must start from the same file; only the addresses may differ.\n\
         # What each key means is in configs/cluster.toml and docs/protocol.md.\n\n{body}"
    ))
}

fn write_node(
    folder: &Path,
    replica: ReplicaId,
    keys: &Keys,
    (udp, tcp): Ports,
    cluster: &ClusterFile,
) -> anyhow::Result<()> {
    make_folder(folder, Readers::Owner)?;
    write_key(&folder.join("identity.key"), &keys.identity)?;
    write_key(&folder.join("signing.key"), &keys.signing)?;
    let text = format!(
        "# Replica {id} of ../cluster.toml. Every key that can stand here is explained in configs/node.toml.\n\
         replica = {id}\n\
         cluster_file = \"../cluster.toml\"\n\
         identity_key_file = \"identity.key\"\n\
         signing_key_file = \"signing.key\"\n\
         data_dir = \"data\"\n\
         listen = \"127.0.0.1:{udp}\"\n\
         admin_listen = \"127.0.0.1:{tcp}\"\n",
        id = replica.0
    );
    write_durably(&folder.join("node.toml"), text.as_bytes(), Readers::All)?;
    IdentityFile::arm(&folder.join("data"), cluster.genesis().cluster(), replica, keys.signing.public())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::files::{read_cluster, read_key};

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        testnet: Testnet,
    }

    #[test]
    fn a_closed_cluster_lets_in_its_own_key_and_the_named_ones_alone() -> Result<(), Box<dyn std::error::Error>> {
        let folder = tempfile::tempdir()?;
        let [named, stranger] = [3, 4].map(|seed| SigningKey::from_seed(&[seed; 32]).public());
        let dir = folder.path().join("net");
        let dir_argument = dir.to_str().ok_or("a printable temporary folder")?;
        let line = ["testnet", "--dir", dir_argument, "--closed", "--client-key", &named.to_hex()];
        Line::try_parse_from(line)?.testnet.run()?;
        let clients = read_cluster(&dir.join("cluster.toml"))?.clients;
        let role = |key| clients.role(polder_types::ClientId(key));
        assert_eq!(role(read_key(&dir.join("client.key"))?.public()), Some(Role::Write));
        assert_eq!(role(named), Some(Role::Write));
        assert_eq!(role(stranger), None);
        Ok(())
    }

    #[test]
    fn a_named_key_wants_a_closed_cluster_and_must_be_a_key() {
        let named = SigningKey::from_seed(&[3; 32]).public().to_hex();
        assert!(Line::try_parse_from(["testnet", "--dir", "net", "--client-key", &named]).is_err());
        assert!(Line::try_parse_from(["testnet", "--dir", "net", "--closed", "--client-key", "alice"]).is_err());
    }

    #[test]
    fn the_summary_says_who_may_lie() -> Result<(), Box<dyn std::error::Error>> {
        let words = summary(Quorum::new(3, FaultModel::Crash)?);
        assert_eq!(words, "3 replicas, of which 1 may fail, of which 0 may lie; a quorum is 2.");
        Ok(())
    }
}
