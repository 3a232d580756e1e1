#!/bin/sh
# Makes the certificates of DatabaseTlsTest, valid for a hundred years.
set -e
cd "$(dirname "$0")"

authority() { # name
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 36500 \
    -keyout "$1.key" -out "$1.pem" -subj "/CN=$1" -addext basicConstraints=critical,CA:true
}

leaf() { # name, common name, subject alternative name
  openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes \
    -keyout "$1.key" -out "$1.csr" -subj "/CN=$2"
  echo "subjectAltName=$3" > "$1.ext"
  openssl x509 -req -in "$1.csr" -CA ca.pem -CAkey ca.key -CAcreateserial -days 36500 \
    -extfile "$1.ext" -out "$1.pem"
}

authority ca
authority other-ca
leaf server localhost DNS:localhost,IP:::1
leaf client postgres DNS:postgres
openssl ec -in client.key -out client-sec1.key # the older form of a key
openssl pkcs12 -export -inkey server.key -in server.pem -out server.p12 -passout pass:server
keytool -genkeypair -alias expired -keyalg EC -dname CN=expired-ca -ext bc=ca:true -startdate -10d -validity 1 \
  -keystore expired.p12 -storepass expired
keytool -exportcert -rfc -alias expired -keystore expired.p12 -storepass expired -file expired-ca.pem
keytool -genkeypair -alias server -keyalg EC -dname CN=localhost -keystore expired-server.p12 -storepass server
keytool -certreq -alias server -keystore expired-server.p12 -storepass server |
  keytool -gencert -alias expired -keystore expired.p12 -storepass expired -rfc -ext san=dns:localhost -validity 36500 > expired-server.pem
cat expired-ca.pem expired-server.pem > expired-chain.pem
keytool -importcert -noprompt -alias server -file expired-chain.pem -keystore expired-server.p12 -storepass server
rm expired-server.pem expired-chain.pem expired.p12 ca.key other-ca.key server.key server.pem ca.srl ./*.csr ./*.ext
