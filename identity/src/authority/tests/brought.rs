//! Authorities that the user brings.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType};

use super::*;

struct Made {
    certificate: CertificateDer<'static>,
    params: CertificateParams,
    key: KeyPair,
}

fn params(name: &str, id: Option<&str>) -> CertificateParams {
    let mut params = CertificateParams::default();
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, name);
    params.not_before = (noon() - TTL).into();
    params.not_after = (noon() + ROOT_LIFETIME).into();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.subject_alt_names = id
        .map(|id| SanType::URI(id.try_into().unwrap()))
        .into_iter()
        .collect();
    params
}

fn signed(params: CertificateParams, by: Option<&Made>) -> Made {
    let key = KeyPair::generate().unwrap();
    let certificate = match by {
        Some(by) => params
            .signed_by(&key, &Issuer::from_params(&by.params, &by.key))
            .unwrap(),
        None => params.self_signed(&key).unwrap(),
    };
    Made {
        certificate: certificate.into(),
        params,
        key,
    }
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path
    }

    fn files(&self, signing: &Made, above: &[&Made], bundle: &[&Made]) -> BroughtFiles {
        let pem = |made: &&Made| crate::encoding::certificates_pem([&made.certificate]);
        let chain: String = [signing].iter().chain(above).map(pem).collect();
        let bundle: String = bundle.iter().map(pem).collect();
        BroughtFiles {
            certificate: self.write("ca.pem", &chain),
            key: self.write("ca.key", &signing.key.serialize_pem()),
            bundle: (!bundle.is_empty()).then(|| self.write("roots.pem", &bundle)),
        }
    }
}

fn brought(files: &BroughtFiles) -> Result<EmbeddedAuthority, AuthorityError> {
    EmbeddedAuthority::brought(files, trust_domain("sidegate.local"), LIFETIMES, noon())
}

fn problem(files: &BroughtFiles) -> String {
    let error = brought(files).err().unwrap();
    assert_eq!(error.code(), "SG0139", "{error}");
    error.to_string()
}

const ID: Option<&str> = Some("spiffe://sidegate.local");

#[test]
fn a_root_signs_through_an_intermediate_of_ours() {
    let (folder, root) = (Folder::new(), signed(params("root", ID), None));
    let authority = brought(&folder.files(&root, &[], &[])).unwrap();
    assert_eq!(authority.bundle().unwrap().roots(), [root.certificate]);
    let before = authority.mint(&entry(None), noon()).unwrap();
    assert_eq!(before.chain().len(), 2);
    let later = noon() + INTERMEDIATE_LIFETIME / 2;
    assert!(!authority.advance(later).unwrap());
    let after = authority.mint(&entry(None), later).unwrap();
    assert_ne!(before.chain()[1], after.chain()[1]);
    assert_eq!(authority.prepare(noon()).unwrap_err().code(), "SG0142");
}

#[test]
fn an_intermediate_signs_itself_with_its_chain_behind_it() {
    let folder = Folder::new();
    let root = signed(params("root", None), None);
    let upper = signed(params("upper", ID), Some(&root));
    let mut lower = params("lower", ID);
    lower.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let lower = signed(lower, Some(&upper));
    let files = folder.files(&lower, &[&upper], &[&root]);
    let authority = brought(&files).unwrap();
    let svid = authority.mint(&entry(None), noon()).unwrap();
    assert_eq!(svid.chain()[1..], [lower.certificate, upper.certificate]);
    assert_eq!(authority.bundle().unwrap().roots(), [root.certificate]);
}

#[test]
fn what_peers_would_refuse_is_refused_at_once() {
    let folder = Folder::new();
    let root = signed(params("root", ID), None);
    let intermediate = signed(params("intermediate", ID), Some(&root));
    let stranger = signed(params("stranger", ID), None);
    let foreign = signed(params("foreign", Some("spiffe://other.test")), None);
    let mut leaf = params("leaf", ID);
    leaf.is_ca = IsCa::ExplicitNoCa;
    let leaf = signed(leaf, Some(&root));
    let rows: [(&Made, &[&Made], &[&Made], &str); 5] = [
        (&intermediate, &[], &[], "`bundle` must name"),
        (&intermediate, &[], &[&stranger], "peers would refuse"),
        (&leaf, &[], &[&root], "peers would refuse"),
        (&root, &[&intermediate], &[], "follow a root"),
        (&root, &[], &[&stranger], "not in `bundle`"),
    ];
    for (signing, above, bundle, expected) in rows {
        let problem = problem(&folder.files(signing, above, bundle));
        assert!(problem.contains(expected), "{problem}");
    }
    let foreign = brought(&folder.files(&foreign, &[], &[])).err().unwrap();
    assert_eq!(foreign.code(), "SG0122", "{foreign}");
    let other_key = folder.files(&root, &[], &[]);
    folder.write("ca.key", &stranger.key.serialize_pem());
    assert!(problem(&other_key).contains("does not belong"));
    folder.write("ca.key", "none");
    assert!(problem(&other_key).contains("no private key"));
    let open = folder.files(&root, &[], &[]);
    fs::set_permissions(&open.key, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(problem(&open).contains("others may read"));
}
