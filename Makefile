.DEFAULT_GOAL := help
.PHONY: help dev studio build start migrate check test bench release image compile fmt fmt-check clean

MVN := mvn -B -ntp
JAR := target/real-meet-server.jar
JAVA := $(if $(JAVA_HOME),$(JAVA_HOME)/bin/java,java)
JAVA_OPTIONS = "@$(CURDIR)/src/deploy/jvm.options"
# Quick to start, for programs that do little; the later of two levels counts.
TEST_CODE = -XX:TieredStopAtLevel=1 -cp target/classes:target/test-classes:$$(cat target/dev.classpath)

$(foreach tool,mvn $(JAVA),$(if $(shell command -v $(tool) 2>/dev/null),,\
  $(error $(tool) is not there: install a JDK 17 or later and Maven 3.6.3 or later)))
SHA256 := $(shell command -v sha256sum || echo shasum -a 256)

help: ## Print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

dev: compile ## Run the server, reload it when a file is saved; stand in for what .env does not set
	@exec $(JAVA) $(TEST_CODE) com.realmeet.server.dev.Dev

studio: compile ## Look at the database of .env, or of make dev, in the browser
	@exec $(JAVA) $(TEST_CODE) com.realmeet.server.dev.Studio

build: $(JAR) ## Make target/real-meet-server.jar

$(JAR): pom.xml $(shell find src/main db -type f)
	$(MVN) -q -DskipTests package

start: $(JAR) ## Run the jar with the settings of .env
	@exec $(JAVA) $(JAVA_OPTIONS) -jar $(JAR)

migrate: $(JAR) ## Bring the table up to date
	@exec $(JAVA) -jar $(JAR) migrate

check: $(JAR) ## Look at everything that can be wrong with the settings of .env, and say what to do
	@exec $(JAVA) $(JAVA_OPTIONS) -jar $(JAR) check

test: ## Make the jar and run all tests
	$(MVN) verify

bench: $(JAR) compile ## Measure the jar, with a database and a stand-in Clerk on this machine
	@exec $(JAVA) $(TEST_CODE) -XX:TieredStopAtLevel=4 com.realmeet.server.bench.Bench $(JAVA_OPTIONS)

release: ## Make the jar, its bill of materials (CycloneDX), the files of src/deploy and checksums in target/release
	@test -z "$$(git status --porcelain)" || { echo "Commit or stash first: a release is what a commit holds" >&2; exit 1; }
	$(MVN) -q -DskipTests clean package cyclonedx:makeBom
	cp -p $(JAR) src/deploy/* target/release
	cd target/release && $(SHA256) * > ../SHA256SUMS && mv ../SHA256SUMS .

image: $(JAR) ## Build the container image real-meet-server, where a Docker engine runs
	@docker info >/dev/null 2>&1 || { echo "No Docker engine answers 'docker info': install or start one" >&2; exit 1; }
	rm -rf target/image && mkdir target/image && cp -p $(JAR) src/deploy/* target/image
	docker build -t real-meet-server target/image

compile:
	@$(MVN) -q test-compile dependency:build-classpath -Dmdep.outputFile=target/dev.classpath -Dmdep.includeScope=test

fmt: ## Format the code
	$(MVN) -q spotless:apply

fmt-check: ## Fail if the code is not formatted
	$(MVN) -q spotless:check

clean: ## Remove what make has made; .dev, the data of make dev, stays
	$(MVN) -q clean
