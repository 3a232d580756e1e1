#!/bin/sh
# Makes the certificates of DatabaseTlsTest, valid for a hundred years.
set -e
cd "$(dirname "$0")"

authority() { # name
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 36500 \
    -keyout "$1.key" -out "$1.pem" -subj "/CN=$1" -addext basicConstraints=critical,CA:true
}

issue() { # authority, name, common name, extension
  openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes \
    -keyout "$2.key" -out "$2.csr" -subj "/CN=$3"
  echo "$4" > "$2.ext"
  openssl x509 -req -in "$2.csr" -CA "$1.pem" -CAkey "$1.key" -CAcreateserial -days 36500 \
    -extfile "$2.ext" -out "$2.pem"
}

authority ca
authority other-ca
issue ca server localhost subjectAltName=DNS:localhost,IP:::1
issue ca client postgres subjectAltName=DNS:postgres
openssl ec -in client.key -out client-sec1.key # the older form of a key
openssl pkcs12 -export -inkey server.key -in server.pem -out server.p12 -passout pass:server

# The server sends its own certificate only, so that a client must know the one in between.
authority root
issue root intermediate intermediate basicConstraints=critical,CA:true
issue intermediate chained localhost subjectAltName=DNS:localhost
openssl pkcs12 -export -inkey chained.key -in chained.pem -out chained-server.p12 -passout pass:server
cat root.pem intermediate.pem > chain-ca.pem

keytool -genkeypair -alias expired -keyalg EC -dname CN=expired-ca -ext bc=ca:true -startdate -10d -validity 1 \
  -keystore expired.p12 -storepass expired
keytool -exportcert -rfc -alias expired -keystore expired.p12 -storepass expired -file expired-ca.pem
keytool -genkeypair -alias server -keyalg EC -dname CN=localhost -keystore expired-server.p12 -storepass server
keytool -certreq -alias server -keystore expired-server.p12 -storepass server |
  keytool -gencert -alias expired -keystore expired.p12 -storepass expired -rfc -ext san=dns:localhost -validity 36500 > expired-server.pem
cat expired-ca.pem expired-server.pem > expired-chain.pem
keytool -importcert -noprompt -alias server -file expired-chain.pem -keystore expired-server.p12 -storepass server
rm expired-server.pem expired-chain.pem expired.p12 ca.key other-ca.key root.* intermediate.key chained.* server.key server.pem ./*.srl ./*.csr ./*.ext
