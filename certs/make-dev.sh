#!/bin/sh
# Makes a CA for development and a server certificate signed by it, with plain openssl: for a test server behind xproxy,
# or for xproxy itself (--cert, --key). Nothing made here belongs into a repository or on a production server.
#
#   sh certs/make-dev.sh DOMAIN [DIRECTORY]
#
# Into DIRECTORY (default: ./dev-certs) go ca.pem ca.key DOMAIN.pem (server certificate, then CA) DOMAIN.key.
# A CA that is there already is used again; the server certificate is made anew each time.
set -eu
umask 077

domain=${1:-}
directory=${2:-dev-certs}
case $domain in
'' | -* | .* | *..* | *[!A-Za-z0-9._-]*)
    echo "usage: sh $0 DOMAIN [DIRECTORY]" >&2
    echo "DOMAIN is the XMPP domain in ASCII letters, digits, dots and hyphens (an IDN as its xn-- form)" >&2
    exit 2
    ;;
esac
command -v openssl >/dev/null || {
    echo "$0: openssl is not installed" >&2
    exit 3
}
mkdir -p "$directory"
work=$(mktemp -d "$directory/.make-dev.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM

new_key() {
    openssl genpkey -quiet -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1" 2>/dev/null ||
        openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1"
}

cat >"$work/openssl.cnf" <<EOF
[req]
distinguished_name = name
prompt = no
string_mask = utf8only
[name]
O = xproxy development
[ca]
basicConstraints = critical, CA:TRUE, pathlen:0
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid:always
[server]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid:always
subjectAltName = @names
[names]
DNS.1 = $domain
# SRVName (RFC 4985) and xmppAddr (RFC 6120 section 13.7.1.4)
otherName.1 = 1.3.6.1.5.5.7.8.7;IA5STRING:_xmpp-client.$domain
otherName.2 = 1.3.6.1.5.5.7.8.5;UTF8:$domain
EOF

if [ ! -f "$directory/ca.pem" ] || [ ! -f "$directory/ca.key" ]; then
    new_key "$work/ca.key"
    openssl req -config "$work/openssl.cnf" -new -x509 -sha256 -days 365 -extensions ca \
        -subj "/O=xproxy development/CN=xproxy development CA" -key "$work/ca.key" -out "$work/ca.pem"
    mv "$work/ca.key" "$directory/ca.key"
    mv "$work/ca.pem" "$directory/ca.pem"
    chmod 644 "$directory/ca.pem"
fi

new_key "$work/server.key"
openssl req -config "$work/openssl.cnf" -new -sha256 -key "$work/server.key" -out "$work/server.csr"
openssl x509 -req -sha256 -days 90 -in "$work/server.csr" -CA "$directory/ca.pem" -CAkey "$directory/ca.key" \
    -set_serial "0x$(openssl rand -hex 16 | sed 's/^./4/')" -extfile "$work/openssl.cnf" -extensions server \
    -out "$work/server.pem" 2>/dev/null
cat "$work/server.pem" "$directory/ca.pem" >"$work/chain.pem"
chmod 644 "$work/chain.pem"
mv "$work/server.key" "$directory/$domain.key"
mv "$work/chain.pem" "$directory/$domain.pem"

echo "CA certificate:      $directory/ca.pem"
echo "server certificate:  $directory/$domain.pem"
echo "server key:          $directory/$domain.key"
