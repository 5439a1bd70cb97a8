import Foundation
import Multipath
import SCSI
import Testing

@testable import MPIO

@Suite struct ConfigurationTests {
    /// Every key there is, except secrets.
    static let everything = """
        initiator:
          name: iqn.2026-11.org.example:host-1
          busy-poll: 80us
        defaults:
          policy: RR
          switch-after: 64k
          timers: {pdo-remove-period: never, silence-timeout: 1500ms, path-verify-period: never}
          marginal-paths: {loss-count: 4, window: 2m, first-hold: 5s, hold-maximum: 10m}
        targets:
          - name: iqn.2026-11.org.example:array-1
            portals:
              - {address: "10.0.1.10:3260", from: 10.0.1.5}
              - {address: "10.0.1.10", from: 10.0.2.5}
              - "[2001:DB8:0::10]:3261"
            digests: {header: crc32c, data: [crc32c, none]}
            connections: 2
            connection-policy: least-queue-depth
            iscsi:
              immediate-data: false
              initial-r2t: true
              max-recv-data-segment-length: 512k
              max-burst-length: 16M
              first-burst-length: 64k
              max-outstanding-r2t: 4
              error-recovery-level: 2
              queue-depth: 128
          - name: eui.0123456789abcdef
            portals:
              - connections:
                  - {address: 10.0.3.10, from: 10.0.3.5, weight: 3}
                  - {address: 10.0.4.10, from: 10.0.4.5, role: standby}
        luns:
          - name: vm-store
            identity: naa.6001405abcdef01234567890abcdef01
            policy: weighted-paths
            weights: priority
            timers: {retry-count: 7, command-timeout: never, pdo-remove-period: 0}
            allow-lun-reset: true
            paths:
              - {portal: "10.0.1.10:3260", from: 10.0.1.5, weight: 3}
              - {portal: 10.0.3.10, role: standby, lun: 4}
              - {device: /dev/sdc, weight: 65535}
          - name: logs
            identity: {target: iqn.2026-11.org.example:array-1, lun: 300}
            policy: fail-over-only
            fail-back: {after: 1.5s}
          - name: scratch
            policy: LB
            sequential-affinity: true
            paths: [{device: scratch.img}]

        """

    @Test func everyKeyIsRead() throws {
        let policy = try Configuration(yaml: Self.everything, folder: "/srv")
        #expect(policy.initiatorName == "iqn.2026-11.org.example:host-1")
        #expect(policy.busyPoll == .always(.microseconds(80)))
        #expect(policy.defaults.policy.options.switchAfter == .bytes(65_536))
        #expect(policy.defaults.timers.pdoRemovePeriod == .never)
        #expect(policy.defaults.timers.silenceTimeout == .milliseconds(1500))
        #expect(policy.defaults.timers.pathVerifyPeriod == .zero)
        #expect(policy.defaults.marginalPaths.holdMaximum == .seconds(600))

        let array = policy.targets[0]
        #expect(array.portals.map(\.name) == ["10.0.1.10:3260@10.0.1.5", "10.0.1.10:3260@10.0.2.5", "[2001:db8::10]:3261"])
        #expect(array.portals.map(\.connections.count) == [2, 2, 2])
        #expect(array.headerDigests == [.crc32c] && array.dataDigests == [.crc32c, .none])
        #expect(array.connectionPolicy.kind == .leastQueueDepth)
        #expect(array.iscsi.maxReceiveDataSegment == 524_288 && array.iscsi.maxBurst == (1 << 24) - 1)
        #expect(array.iscsi.errorRecoveryLevel == 2 && array.iscsi.queueDepth == 128 && !array.iscsi.immediateData)
        let joined = policy.targets[1].portals[0]
        #expect(joined.connections.map(\.weight) == [3, 1] && joined.connections[1].role == .standby)

        let store = try #require(policy.lun(named: "vm-store"))
        #expect(store.settings.policy.kind == .weightedPaths && store.settings.policy.options.weights == .priority)
        #expect(store.settings.timers.retryCount == 7 && store.settings.timers.silenceTimeout == .milliseconds(1500))
        #expect(store.settings.timers.pdoRemovePeriod == .after(.zero) && store.settings.timers.commandTimeout == .zero)
        #expect(store.settings.staleWriteGuard.allowsLogicalUnitReset)
        #expect(store.paths.map(\.settings.name) == ["10.0.1.10:3260@10.0.1.5", "10.0.3.10:3260", "/dev/sdc"])
        #expect(store.paths.map(\.settings.order) == [0, 1, 2])
        #expect(store.paths[1].transport == .portal(target: 1, portal: 0, lun: LogicalUnitNumber(index: 4)))
        #expect(policy.luns[1].settings.policy.options.failBack == .after(.milliseconds(1500)))
        #expect(policy.luns[1].identification == .location(target: "iqn.2026-11.org.example:array-1", lun: LogicalUnitNumber(index: 300)!))
        #expect(policy.luns[2].identification == .byPaths)
        #expect(policy.luns[2].paths[0].transport == .device(path: "/srv/scratch.img"))
    }

    /// Numbers that are no mistake: another target's, one LUN's through several portals, and those of LUNs that each say
    /// which unit they mean (a target may number its units differently at each port group).
    @Test func oneNumberMayMeanSeveralUnits() throws {
        let policy = try Configuration(
            yaml: """
                targets:
                  - {name: iqn.2026-11.org.example:a, portals: [10.0.0.1, 10.0.0.2]}
                  - {name: iqn.2026-11.org.example:b, portals: [10.0.0.3]}
                luns:
                  - {name: place, identity: {target: iqn.2026-11.org.example:a, lun: 0}}
                  - {name: other, identity: {target: iqn.2026-11.org.example:b, lun: 0}}
                  - {name: listed, paths: [{portal: 10.0.0.1, lun: 1}, {portal: 10.0.0.2, lun: 1}]}
                  - name: own-target
                    identity: {target: iqn.2026-11.org.example:a, lun: 2}
                    paths: [{portal: 10.0.0.1}, {portal: 10.0.0.2, lun: 2}]
                  - {name: first, identity: naa.6001405abcdef01234567890abcdef01, paths: [{portal: 10.0.0.1, lun: 3}]}
                  - {name: second, identity: naa.6001405abcdef01234567890abcdef02, paths: [{portal: 10.0.0.2, lun: 3}]}
                """)
        #expect(policy.luns.count == 6)
    }

    /// The file that the project's design shows, word for word.
    @Test func theDesignsExampleIsAccepted() throws {
        let folder = TemporaryFolder()
        for (name, secret) in [("chap.secret", "a-secret-of-ours"), ("array.secret", "a-secret-of-theirs")] {
            try secret.write(toFile: folder.path + "/" + name, atomically: false, encoding: .utf8)
            #expect(chmod(folder.path + "/" + name, 0o600) == 0)
        }
        let policy = try Configuration(
            yaml: """
                initiator:
                  name: iqn.2026-11.org.example:host-1

                defaults:
                  policy: round-robin
                  timers: {pdo-remove-period: 20s, silence-timeout: 2s}

                targets:
                  - name: iqn.2026-11.org.example:array-1
                    portals:                                   # one session per entry, each its own pair of addresses
                      - {address: "10.0.1.10:3260", from: 10.0.1.5}
                      - {address: "10.0.2.10:3260", from: 10.0.2.5}
                    chap: {user: host-1, secret-file: chap.secret, mutual-user: array-1, mutual-secret-file: array.secret}
                    digests: {header: crc32c, data: none}
                    connections: 1                             # more than 1: MCS
                    connection-policy: round-robin

                luns:
                  - name: vm-store
                    identity: naa.6001405abcdef01234567890abcdef01   # or {target: …, lun: 1}
                    policy: weighted-paths
                    paths:                                     # left out: every path that leads to it, equal and primary
                      - {portal: "10.0.1.10:3260", weight: 3}
                      - {portal: "10.0.2.10:3260", weight: 1}
                      - {device: /dev/sdc, role: standby}      # a kernel block device is a path as well
                """, folder: folder.path)
        let target = policy.targets[0]
        #expect(target.portals.map(\.connections.count) == [1, 1] && target.connectionPolicy.kind == .roundRobin)
        #expect(target.headerDigests == [.crc32c] && target.chap?.mutual?.user == "array-1")
        #expect(policy.luns[0].settings.policy.kind == .weightedPaths && policy.luns[0].paths.map(\.settings.weight) == [3, 1, 1])
        #expect(policy.luns[0].paths[2].settings.role == .standby)
    }

    @Test func whatIsLeftOutHasTheDocumentedDefaults() throws {
        let policy = try Configuration(
            yaml: """
                targets: [{name: iqn.2026-11.org.example:a, portals: [10.0.0.1, "::1"]}]
                luns: [{name: a, identity: naa.6001405abcdef01234567890abcdef01}]
                """)
        #expect(policy.initiatorName == nil)
        #expect(policy.busyPoll == .adaptive)
        #expect(policy.luns[0].settings == LUNSettings())
        #expect(policy.luns[0].paths.isEmpty)
        #expect(policy.targets[0].portals.map(\.name) == ["10.0.0.1:3260", "[::1]:3260"])
        #expect(policy.targets[0].iscsi == SessionTuning())
        #expect(policy.targets[0].headerDigests == [.none])
    }

    @Test func anAddressThatTwoTargetsShareNeedsTheTargetsName() throws {
        let yaml = """
            targets:
              - {name: iqn.2026-11.org.example:a, portals: [10.0.0.1]}
              - {name: iqn.2026-11.org.example:b, portals: [10.0.0.1]}
            luns:
              - name: one
                identity: {target: iqn.2026-11.org.example:b, lun: 1}
                paths: [{portal: 10.0.0.1}]
              - name: two
                identity: naa.6001405abcdef01234567890abcdef01
                paths: [{portal: 10.0.0.1, target: iqn.2026-11.org.example:a}]
            """
        let policy = try Configuration(yaml: yaml)
        #expect(policy.luns[0].paths[0].transport == .portal(target: 1, portal: 0, lun: LogicalUnitNumber(index: 1)))
        #expect(policy.luns[1].paths[0].settings.name == "10.0.0.1:3260,iqn.2026-11.org.example:a")
        let errors = ConfigurationErrorTests.errors(of: yaml.replacing(", target: iqn.2026-11.org.example:a", with: ""))
        #expect(errors == ["10:22: luns[1].paths[0].portal: several targets have the portal 10.0.0.1:3260 (expected 'target' beside it)"])
    }

    // MARK: Secrets

    private func withFolder(_ body: (String) throws -> Void) throws {
        var template = Array((NSTemporaryDirectory() + "/mpio-XXXXXX").utf8CString)
        let folder = try #require(mkdtemp(&template)).withMemoryRebound(to: CChar.self, capacity: 1) { String(cString: $0) }
        defer { try? FileManager.default.removeItem(atPath: folder) }
        try body(folder)
    }

    private func write(_ text: String, to path: String, mode: mode_t) throws {
        try text.write(toFile: path, atomically: false, encoding: .utf8)
        #expect(chmod(path, mode) == 0)
    }

    private let chap = """
        targets:
          - name: iqn.2026-11.org.example:a
            portals: [10.0.0.1]
            chap: {user: host, secret-file: one.secret, mutual-user: array, mutual-secret-file: two.secret}
        luns: [{name: a, identity: naa.6001405abcdef01234567890abcdef01}]
        """

    @Test func secretsComeFromFilesBesideThePolicyAndAreNeverPrinted() throws {
        try withFolder { folder in
            try write("opensesame-123\n", to: folder + "/one.secret", mode: 0o600)
            try write("answersesame-4\r\n", to: folder + "/two.secret", mode: 0o400)
            try write(chap, to: folder + "/mpio.yaml", mode: 0o644)
            let policy = try Configuration(contentsOf: folder + "/mpio.yaml")
            let found = try #require(policy.targets[0].chap)
            #expect(found.secret.bytes == Array("opensesame-123".utf8))
            #expect(found.mutual?.secret.bytes == Array("answersesame-4".utf8))
            #expect(found.algorithms == [.sha3_256, .sha1, .md5, .sha256])
            var dumped = ""
            dump(policy, to: &dumped)
            for text in ["\(found)", "\(policy)", String(reflecting: policy), dumped] {
                #expect(!text.contains("sesame") && !text.contains("111, 112, 101, 110"))
            }
        }
    }

    @Test func aSecretFileThatOthersCanUseIsRefusedWithTheCommandThatHelps() throws {
        try withFolder { folder in
            try write("opensesame-123\n", to: folder + "/one.secret", mode: 0o640)
            try write("short\n", to: folder + "/two.secret", mode: 0o600)
            let error = #expect(throws: InvalidConfiguration.self) { try Configuration(yaml: chap, file: "f", folder: folder) }
            #expect(
                error?.errors.map(\.description) == [
                    "f:4:37: targets[0].chap.secret-file: the secret file \(folder)/one.secret is open to others (mode 0640); run: chmod 600 \(folder)/one.secret",
                    "f:4:89: targets[0].chap.mutual-secret-file: the secret has 5 bytes; CHAP needs at least 12",
                ])
        }
    }

    @Test func bothDirectionsMustNotShareASecret() throws {
        try withFolder { folder in
            try write("opensesame-123", to: folder + "/one.secret", mode: 0o600)
            try write("opensesame-123\n", to: folder + "/two.secret", mode: 0o600)
            let error = #expect(throws: InvalidConfiguration.self) { try Configuration(yaml: chap, folder: folder) }
            #expect(error?.errors.map(\.message) == ["both directions have the same secret"])
        }
    }

    @Test func aSecretOfSeveralLinesOrInAFolderIsRefused() throws {
        try withFolder { folder in
            try write("opensesame\nopensesame\n", to: folder + "/one.secret", mode: 0o600)
            mkdir(folder + "/two.secret", 0o700)
            let error = #expect(throws: InvalidConfiguration.self) { try Configuration(yaml: chap, folder: folder) }
            #expect(error?.errors.map(\.message) == ["the secret is not one line of text", "the secret file \(folder)/two.secret is not a regular file"])
        }
    }

    // MARK: Where the file is looked for

    @Test func thePolicyFileIsLookedForInTheDocumentedOrder() throws {
        try withFolder { folder in
            mkdir(folder + "/mpio", 0o700)
            let system = folder + "/system.yaml"
            var environment = ["XDG_CONFIG_HOME": folder]
            let nowhere = #expect(throws: ConfigurationFileError.self) {
                try Configuration.search(environment: environment, systemFile: system)
            }
            #expect("\(nowhere!)".contains("./mpio.yaml, \(folder)/mpio/mpio.yaml, \(system)"))
            try write("", to: system, mode: 0o600)
            #expect(try Configuration.search(environment: environment, systemFile: system) == system)
            try write("", to: folder + "/mpio/mpio.yaml", mode: 0o600)
            #expect(try Configuration.search(environment: environment, systemFile: system) == folder + "/mpio/mpio.yaml")
            environment["MPIO_CONFIG"] = folder + "/named.yaml"
            #expect(throws: ConfigurationFileError.self) { try Configuration.search(environment: environment, systemFile: system) }
            try write("", to: folder + "/named.yaml", mode: 0o600)
            #expect(try Configuration.search(environment: environment, systemFile: system) == folder + "/named.yaml")
            #expect(try Configuration.search(explicit: system, environment: environment) == system)
            #expect(throws: ConfigurationFileError.self) { try Configuration.search(explicit: folder + "/none.yaml", environment: environment) }
        }
    }

    @Test func aFolderAFIFOAndAHugeFileAreRefused() throws {
        try withFolder { folder in
            #expect(throws: ConfigurationFileError.notARegularFile(path: folder)) { try Configuration(contentsOf: folder) }
            mkfifo(folder + "/fifo", 0o600)
            #expect(throws: ConfigurationFileError.notARegularFile(path: folder + "/fifo")) { try Configuration(contentsOf: folder + "/fifo") }
            try write(String(repeating: "#", count: (1 << 20) + 1), to: folder + "/huge", mode: 0o600)
            #expect(throws: ConfigurationFileError.tooLarge(path: folder + "/huge")) { try Configuration(contentsOf: folder + "/huge") }
        }
    }
}

@Suite struct ConfigurationUnitsTests {
    @Test(arguments: [("0", 0), ("4k", 4096), ("4K", 4096), ("1M", 1 << 20), ("2GiB", 2 << 30), ("3TB", 3 << 40), ("512", 512), ("7B", 7)] as [(String, UInt64)])
    func sizesAreBinary(_ text: String, _ value: UInt64) {
        #expect(Units.parseSize(text) == value)
    }

    @Test(arguments: ["", "k", "-1", "1.5k", "4kk", "4 k", "99999999999999999999", "20000P", "4iB", "٣k"])
    func whatIsNoSizeIsRefused(_ text: String) {
        #expect(Units.parseSize(text) == nil)
    }

    @Test(arguments: [("20s", 20_000), ("500ms", 500), ("0", 0), ("1.5s", 1500), ("2m", 120_000), ("2min", 120_000), ("1h", 3_600_000), ("1d", 86_400_000), ("0.25h", 900_000), ("1000us", 1)])
    func durationsHaveUnits(_ text: String, _ milliseconds: Int) {
        #expect(Units.parseDuration(text) == .milliseconds(milliseconds))
    }

    @Test(arguments: ["", "20", "s", "-1s", "1..5s", "1.s", ".5s", "1e3s", "999999999999999999d", "1 s", "20sec"])
    func whatIsNoDurationIsRefused(_ text: String) {
        #expect(Units.parseDuration(text) == nil)
    }

    @Test func aFormattedDurationReadsBack() {
        for nanoseconds in [0, 1, 999, 1000, 1_500_000, 20_000_000_000, 90_000_000_000, 86_400_000_000_000, 123_456_789] as [Int64] {
            let duration = Duration.nanoseconds(nanoseconds)
            #expect(Units.parseDuration(Units.format(duration)) == duration, "\(Units.format(duration))")
        }
    }
}
