package com.realmeet.server.testing;

import com.auth0.jwt.algorithms.Algorithm;
import java.security.interfaces.RSAPublicKey;
import java.util.List;
import java.util.stream.Stream;

/** Tokens that a server must refuse, and odd ones that it must accept: one rule a row. */
public final class SessionTokenTable extends SessionTokens {
  public SessionTokenTable(StandInClerk clerk) {
    super(clerk);
  }

  public Stream<Row> refused() {
    return Stream.of(
            refusedHeaders(), refusedTimes(), refusedClaims(), refusedSignatures(), refusedForms())
        .flatMap(rows -> rows);
  }

  private Stream<Row> refusedHeaders() {
    return Stream.of(
        header("alg none", h -> h.put("alg", "none")),
        header("alg of another case", h -> h.put("alg", "rs256")),
        header("alg HS256", h -> h.put("alg", "HS256")),
        header("alg ES256", h -> h.put("alg", "ES256")),
        header("alg RS512", h -> h.put("alg", "RS512")),
        header("alg PS256", h -> h.put("alg", "PS256")),
        header("alg missing", h -> h.remove("alg")),
        header("alg null", h -> h.putNull("alg")),
        header("alg a list", h -> h.putArray("alg").add("RS256")),
        header("typ of another token", h -> h.put("typ", "at+jwt")),
        header("typ of another case", h -> h.put("typ", "jwt")),
        header("typ null", h -> h.putNull("typ")),
        header("typ a number", h -> h.put("typ", 1)),
        header("cat of a template", h -> h.put("cat", "cl_B7d4PD222AAA")),
        header("cat empty", h -> h.put("cat", "")),
        header("cat null", h -> h.putNull("cat")),
        header("cat a list", h -> h.putArray("cat").add("cl_B7d4PD111AAA")),
        header("crit", h -> h.putArray("crit").add("exp")),
        header("crit empty", h -> h.putArray("crit")),
        header("crit null", h -> h.putNull("crit")),
        header("kid missing", h -> h.remove("kid")),
        header("kid null", h -> h.putNull("kid")),
        header("kid a number", h -> h.put("kid", 1)),
        header("kid an object", h -> h.putObject("kid").put("kid", "ins_1")),
        header("kid empty", h -> h.put("kid", "")),
        header("kid unknown", h -> h.put("kid", "ins_unknown")),
        header("kid a path", h -> h.put("kid", "../../v1/users")));
  }

  private Stream<Row> refusedTimes() {
    return Stream.of(
        claims("exp missing", c -> c.remove("exp")),
        claims("exp null", c -> c.putNull("exp")),
        claims("exp a string", c -> c.put("exp", String.valueOf(now() + 60))),
        claims("exp a list", c -> c.putArray("exp").add(now() + 60)),
        claims("exp true", c -> c.put("exp", true)),
        claims("exp zero", c -> c.put("exp", 0)),
        claims("exp 7 s ago", c -> c.put("exp", now() - 7)),
        claims("exp in the distant past", c -> c.put("exp", -1e300)),
        claims("nbf in the future", c -> c.put("nbf", now() + 60)),
        claims("nbf a string", c -> c.put("nbf", String.valueOf(now()))),
        claims("nbf null", c -> c.putNull("nbf")),
        claims("iat in the future", c -> c.put("iat", now() + 60)),
        claims("iat a string", c -> c.put("iat", String.valueOf(now()))),
        claims("iat null", c -> c.putNull("iat")));
  }

  private Stream<Row> refusedClaims() {
    return Stream.concat(
        Stream.of(
            claims("azp missing", c -> c.remove("azp")),
            claims("azp null", c -> c.putNull("azp")),
            claims("azp of another site", c -> c.put("azp", "http://localhost:3000.evil.test")),
            claims("azp of another port", c -> c.put("azp", "http://localhost:3001")),
            claims("azp a list", c -> c.putArray("azp").add("http://localhost:3000")),
            claims("sts pending", c -> c.put("sts", "pending")),
            claims("sub missing", c -> c.remove("sub")),
            claims("sub null", c -> c.putNull("sub")),
            claims("sub a number", c -> c.put("sub", 1)),
            claims("sub a list", c -> c.putArray("sub").add(USER)),
            claims("sub an object", c -> c.putObject("sub").put("id", USER))),
        Stream.of(
                "",
                "user_",
                "../jwks",
                "user_1#x",
                "user_1?a=b",
                "user_1/../../jwks",
                "user_%2e",
                "user_ü",
                "user_good\n",
                " user_good",
                "USER_good",
                "org_1",
                LONGEST + "a")
            .map(sub -> claims("sub '" + sub + "'", c -> c.put("sub", sub))));
  }

  private Stream<Row> refusedSignatures() {
    RSAPublicKey key = (RSAPublicKey) clerk.key().pair().getPublic();
    byte[] der = key.getEncoded();
    return Stream.of(
        row("signed by a stranger", () -> sign(clerk.header(), claims(), stranger)),
        row("HMAC of the key in DER", () -> signed(Algorithm.HMAC256(der))),
        row("HMAC of the key in PEM", () -> signed(Algorithm.HMAC256(pem(key)))),
        row("HMAC of the modulus", () -> signed(Algorithm.HMAC256(key.getModulus().toByteArray()))),
        row("HMAC of nothing but a NUL", () -> signed(Algorithm.HMAC256(new byte[1]))),
        row("signed with RS512", () -> signed(Algorithm.RSA512(null, privateKey()))),
        row("signed with ES256", () -> signed(ellipticAlgorithm())),
        row("unsigned", () -> signed(Algorithm.none())),
        row("signature empty", () -> part(0) + "." + part(1) + "."),
        row("signature of another token", () -> part(0) + "." + part(1) + "." + part(2, LONGEST)),
        row("signature cut short", () -> good().substring(0, good().length() - 8)),
        row("claims exchanged", () -> part(0) + "." + part(1, LONGEST) + "." + part(2)),
        row("claims tampered with", () -> part(0) + ".e30." + part(2)),
        row("padding", () -> good() + "=="),
        row("half a padding", () -> good() + "="));
  }

  private Stream<Row> refusedForms() {
    String deep = "[".repeat(4000) + "]".repeat(4000);
    return Stream.of(
        row("machine token ak_", () -> "ak_4f9Kd82LmQ7xZ1"),
        row("machine token oat_", () -> "oat_4f9Kd82LmQ7xZ1"),
        row("machine token mt_", () -> "mt_4f9Kd82LmQ7xZ1"),
        row("good token behind ak_", () -> "ak_" + good()),
        row("good token in quotes", () -> '"' + good() + '"'),
        row("header null", () -> "bnVsbA.e30.AAAA"),
        raw("header a list", "[]", claims().toString()),
        raw("header not JSON", "{", claims().toString()),
        raw("header that names alg twice", "{'alg':'RS256','alg':'none','kid':'ins_1'}", "{}"),
        raw("header too deep", "{'alg':'RS256','x':" + deep + "}", claims().toString()),
        raw("claims null", clerk.header().toString(), "null"),
        raw("claims a list", clerk.header().toString(), "[]"),
        raw("claims a string", clerk.header().toString(), "'user_good'"),
        raw("claims not JSON", clerk.header().toString(), "user_good"),
        raw("claims too deep", clerk.header().toString(), with("'x':" + deep)),
        raw("sub twice, the second bad", clerk.header().toString(), with("'sub':'../jwks'")),
        raw("header and more", clerk.header() + "{}", claims().toString()),
        raw("header and a word", clerk.header() + " x", claims().toString()),
        raw("header and a comma", clerk.header() + ",", claims().toString()),
        raw("claims and more", clerk.header().toString(), claims() + "{'sub':'user_other'}"),
        raw("claims and a bracket", clerk.header().toString(), claims() + "}"),
        raw("claims and a NUL", clerk.header().toString(), claims() + "\u0000"),
        raw("claims and the word null", clerk.header().toString(), claims() + "\nnull"),
        raw("exp too big", clerk.header().toString(), with("'exp':1e999")),
        raw("exp of 5000 digits", clerk.header().toString(), with("'exp':" + "9".repeat(5000))),
        row("not base64", () -> "$$$.$$$.$$$"),
        row("not ASCII", () -> "\u00fc.\u00fc.\u00fc"),
        row("one part", () -> "xyz"), // no hexadecimal digits: the log has ids of requests
        row("two parts", () -> part(0) + "." + part(1)),
        row("four parts", () -> good() + ".AAAA"),
        row("five parts, as encrypted ones have", () -> good() + ".AAAA.AAAA"),
        row("only dots", () -> ".."),
        row("no header", () -> "." + part(1) + "." + part(2)),
        row("no claims", () -> part(0) + ".." + part(2)),
        row("12 KB of junk", () -> "x".repeat(12 << 10)),
        row("12 KB of dots", () -> ".".repeat(12 << 10)));
  }

  public Stream<Row> accepted() {
    return Stream.of(
        row("as Clerk makes them", this::good),
        header("typ missing", h -> h.remove("typ")),
        header("cat missing", h -> h.remove("cat")),
        header("cat of the other kind", h -> h.put("cat", "cl_I7d4PD111III")),
        header("unknown headers", h -> h.put("jku", "http://evil.test").put("x", 1)),
        claims("exp within the skew", c -> c.put("exp", now() - 3)),
        claims("exp with a fraction", c -> c.put("exp", now() + 30.5)),
        claims("nbf within the skew", c -> c.put("nbf", now() + 4)),
        claims("iat within the skew", c -> c.put("iat", now() + 4)),
        claims("nbf and iat missing", c -> c.remove(List.of("nbf", "iat"))),
        claims("sts missing", c -> c.remove("sts")),
        claims("another issuer", c -> c.put("iss", "https://clerk.satellite.test")),
        claims("unknown claims", c -> c.putObject("o").put("id", "org_1")),
        claims("the longest sub", c -> c.put("sub", LONGEST)),
        raw(
            "blanks around header and claims",
            " " + clerk.header() + "\n",
            "\t" + claims() + " \r\n"),
        raw("sub twice, the second good", clerk.header().toString(), with("'sub':'user_good'")));
  }
}
