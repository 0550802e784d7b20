"""py-spiffe as a client of the Workload API: prints what it got, as one JSON document.

Usage: spiffe_client.py SOCKET AUDIENCE OTHER_AUDIENCE

SOCKET is unix:///path; the workload may have AUDIENCE and not OTHER_AUDIENCE. Private keys are not
printed.
"""

import json
import sys

from spiffe import JwtSvid, SpiffeId, WorkloadApiClient


def refusal(call):
    """How a call is refused, or None when it is not."""
    try:
        call()
    except Exception as error:  # whatever it is, the test judges it
        return f"{type(error).__name__}: {error}"
    return None


def describe(svid):
    """A JWT-SVID as JSON."""
    return {
        "spiffe_id": str(svid.spiffe_id),
        "audience": sorted(svid.audience),
        "expiry": svid.expiry,
        "token": svid.token,
    }


def main():
    socket, audience, other = sys.argv[1:]
    client = WorkloadApiClient(socket, default_timeout=30)

    x509_svid = client.fetch_x509_svid()
    x509_bundles = client.fetch_x509_bundles().bundles
    jwt_svid = client.fetch_jwt_svid({audience})
    selected = client.fetch_jwt_svid({audience}, subject=jwt_svid.spiffe_id)
    jwt_bundles = client.fetch_jwt_bundles()
    validated = client.validate_jwt_svid(jwt_svid.token, audience)

    bundle = jwt_bundles.get_bundle_for_trust_domain(jwt_svid.spiffe_id.trust_domain)
    validated_locally = JwtSvid.parse_and_validate(jwt_svid.token, bundle, {audience})
    stranger = SpiffeId(f"spiffe://{jwt_svid.spiffe_id.trust_domain}/stranger")

    document = {
        "x509_svid": {
            "spiffe_id": str(x509_svid.spiffe_id),
            "certificates": len(x509_svid.cert_chain),
        },
        "x509_bundles": {
            str(bundle.trust_domain): len(bundle.x509_authorities)
            for bundle in x509_bundles
        },
        "jwt_svid": describe(jwt_svid),
        "selected": describe(selected),
        "jwt_bundles": {
            str(bundle.trust_domain): {
                key_id: key.curve.name for key_id, key in bundle.jwt_authorities.items()
            }
            for bundle in jwt_bundles.bundles
        },
        "validated": describe(validated),
        "validated_locally": describe(validated_locally),
        "refused": {
            "fetch for another audience": refusal(
                lambda: client.fetch_jwt_svid({other})
            ),
            "fetch for both audiences": refusal(
                lambda: client.fetch_jwt_svid({audience, other})
            ),
            "fetch for another workload": refusal(
                lambda: client.fetch_jwt_svid({audience}, subject=stranger)
            ),
            "validate for another audience": refusal(
                lambda: client.validate_jwt_svid(jwt_svid.token, other)
            ),
            "validate a cut token": refusal(
                lambda: client.validate_jwt_svid(jwt_svid.token[:-4], audience)
            ),
            "validate locally for another audience": refusal(
                lambda: JwtSvid.parse_and_validate(jwt_svid.token, bundle, {other})
            ),
        },
    }
    json.dump(document, sys.stdout)
    print()


if __name__ == "__main__":
    main()
