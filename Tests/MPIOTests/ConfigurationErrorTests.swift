import Foundation
import Testing

@testable import MPIO

/// A policy file with mistakes, and what is to be said of them.
struct BrokenPolicy: CustomTestStringConvertible, Sendable {
    var yaml: String
    /// `LINE:COLUMN: KEY: MESSAGE…`; each a prefix of one error, in order, and there are no others.
    var errors: [String]

    init(_ errors: String..., yaml: String) {
        self.yaml = yaml
        self.errors = errors
    }

    var testDescription: String { errors.first ?? "" }

    static func luns(_ error: String, _ text: String) -> BrokenPolicy {
        var policy = BrokenPolicy(yaml: targets + text)
        policy.errors = [error]
        return policy
    }

    /// Eight lines.
    static let targets = """
        targets:
          - name: iqn.2026-11.org.example:array-1
            portals:
              - {address: "10.0.1.10:3260", from: 10.0.1.5}
              - {address: "10.0.2.10:3260", from: 10.0.2.5}
          - name: iqn.2026-11.org.example:array-2
            portals: ["[2001:db8::10]:3260"]
        luns:

        """
}

@Suite struct ConfigurationErrorTests {
    static func errors(of yaml: String) -> [String] {
        do throws(InvalidConfiguration) {
            _ = try Configuration(yaml: yaml, file: "f")
            return []
        } catch {
            return error.errors.map { String($0.description.dropFirst(2)) }
        }
    }

    static let wholeFiles: [BrokenPolicy] = [
        BrokenPolicy("1:1: the file is empty", yaml: ""),
        BrokenPolicy("1:1: the file is empty", yaml: "# nothing but a remark\n"),
        BrokenPolicy("2:1: nothing where a mapping belongs (expected the keys", yaml: "---\n"),
        BrokenPolicy("1:1: a list where a mapping belongs", yaml: "- a\n- b\n"),
        BrokenPolicy("1:1: 'hello' where a mapping belongs", yaml: "hello"),
        BrokenPolicy("1:1: the key 'luns' is missing (expected a list of LUNs", yaml: "targets: []"),
        BrokenPolicy("2:3: the character U+0000 can't be in a policy file", yaml: "a: 1\nb:\u{0}"),
        BrokenPolicy("1:1: the character U+0007", yaml: "\u{7}ELF"),
        BrokenPolicy("2:1: not valid YAML: ", yaml: "luns: [\n"),
        BrokenPolicy("2:1: not valid YAML: found character that cannot start any token", yaml: "luns:\n\t- a\n"),
        BrokenPolicy("2:1: not valid YAML: but found another document", yaml: "luns: []\n---\nluns: []\n"),
        BrokenPolicy("1:7: not valid YAML: found undefined alias", yaml: "luns: *nothing\n"),
        BrokenPolicy("1:7: luns: nothing where a list belongs", yaml: "luns: ~\n"),
        BrokenPolicy("1:7: luns: a mapping where a list belongs", yaml: "luns: {a: b}\n"),
        BrokenPolicy("1:7: luns: no LUN (expected at least one LUN)", yaml: "luns: []\n"),
    ]

    @Test(arguments: wholeFiles)
    func aFileThatIsNoPolicyIsRefusedWithItsPlace(_ broken: BrokenPolicy) {
        Self.check(broken)
    }

    static func check(_ broken: BrokenPolicy) {
        let errors = Self.errors(of: broken.yaml)
        let matches = errors.count == broken.errors.count && zip(errors, broken.errors).allSatisfy { $0.hasPrefix($1) }
        #expect(matches, "\(errors.joined(separator: "\n"))")
    }

    static let luns: [BrokenPolicy] = [
        .luns("9:5: luns[0]: the key 'identity' is missing", "  - name: a\n"),
        .luns("9:5: luns[0]: the key 'name' is missing", "  - identity: naa.6001405abcdef01234567890abcdef01\n"),
        .luns("9:5: luns[0]: 'a' where a mapping belongs", "  - a\n"),
        .luns("9:11: luns[0].name: 'a b' is not valid", "  - name: a b\n    identity: naa.6001405abcdef01234567890abcdef01\n"),
        .luns("10:15: luns[0].identity: 'naa.6001405' is no identity", "  - name: a\n    identity: naa.6001405\n"),
        .luns("10:15: luns[0].identity: 'naa.3000000000000001' is no identity; a locally assigned NAA counts only with its target: local.", "  - name: a\n    identity: naa.3000000000000001\n"),
        .luns("10:24: luns[0].identity.target: no target 'iqn.2026-11.org.example:array-3' under 'targets'; did you mean 'iqn.2026-11.org.example:array-", "  - name: a\n    identity: {target: \"iqn.2026-11.org.example:array-3\", lun: 0}\n"),
        .luns("10:64: luns[0].identity.lun: '16384' is not valid (expected a whole number from 0 to 16383)", "  - name: a\n    identity: {target: \"iqn.2026-11.org.example:array-1\", lun: 16384}\n"),
        .luns(
            "12:15: luns[1].identity: another LUN claims this identity, in line 10",
            "  - name: a\n    identity: naa.6001405abcdef01234567890abcdef01\n  - name: b\n    identity: NAA.6001405ABCDEF01234567890ABCDEF01\n".replacing("NAA.", with: "naa.")),
        .luns(
            "11:11: luns[1].name: another LUN is named 'a', in line 9",
            "  - name: a\n    identity: naa.6001405abcdef01234567890abcdef01\n  - name: a\n    identity: naa.6001405abcdef01234567890abcdef02\n"),
        lun("11:13: luns[0].policy: 'round-robbin' is no policy; did you mean 'round-robin'?", "policy: round-robbin"),
        lun("11:13: luns[0].policy: a list where a value belongs", "policy: [RR]"),
        lun("11:5: luns[0].polcy: unknown key 'polcy'; did you mean 'policy'?", "polcy: RR"),
        lun("11:5: luns[0].zzz: unknown key 'zzz' (expected name, identity, paths,", "zzz: 1"),
        lun("11:5: luns[0].<<: merging mappings by '<<' is not supported", "<<: {policy: RR}"),
        lun("12:19: luns[0].switch-after: '0' is not valid (expected a number of requests such as 8", "policy: RR\n    switch-after: 0"),
        lun("12:19: luns[0].switch-after: '-1' is not valid", "policy: RR\n    switch-after: -1"),
        lun("12:14: luns[0].weights: 'weights' means nothing to the policy round-robin (expected it beside weighted-paths)", "policy: RR\n    weights: priority"),
        lun("12:16: luns[0].fail-back: 'sometimes' is not valid (expected immediate, manual or {after: 30s})", "policy: FOO\n    fail-back: sometimes"),
        lun("12:24: luns[0].fail-back.after: '-3s' is not valid", "policy: FOO\n    fail-back: {after: -3s}"),
        lun("12:23: luns[0].activate-standby: 'never' is not valid (expected per-failed-primary or when-none-left)", "policy: RRWS\n    activate-standby: never"),
        lun("12:26: luns[0].sequential-affinity: 'yes' is not valid (expected true or false)", "policy: LB\n    sequential-affinity: yes"),
        lun("11:22: luns[0].allow-lun-reset: 'true' is not valid", "allow-lun-reset: \"true\""),
        lun("11:31: luns[0].timers.silence-timeout: '2' is not valid (expected a duration from 10ms to 1h, such as 500ms or 20s)", "timers: {silence-timeout: 2}"),
        lun("11:33: luns[0].timers.pdo-remove-period: 'forever' is not valid (expected a duration from 0 to 1d, such as 500ms or 20s, or never)", "timers: {pdo-remove-period: forever}"),
        lun("11:31: luns[0].timers.command-timeout: '0' is not valid (expected a duration from 10ms to 1d, such as 500ms or 20s, or never)", "timers: {command-timeout: 0}"),
        lun("11:14: luns[0].timers.silence-timout: unknown key 'silence-timout'; did you mean 'silence-timeout'?", "timers: {silence-timout: 2s}"),
        lun("11:31: luns[0].timers.silence-timeout: silence-timeout (90s) has to be shorter than command-timeout (60s)", "timers: {silence-timeout: 90s}"),
        lun("11:38: luns[0].timers.path-recovery-interval: path-recovery-interval is longer than", "timers: {path-recovery-interval: 1h}"),
        lun("11:27: luns[0].timers.retry-count: '1.5' is not valid", "timers: {retry-count: 1.5}"),
        lun("11:34: luns[0].marginal-paths.loss-count: '1' is not valid (expected a whole number from 2 to 1000)", "marginal-paths: {loss-count: 1}"),
        lun("11:12: luns[0].paths: an empty list", "paths: []"),
        lun("11:14: luns[0].paths[0]: '10.0.1.10' where a mapping belongs", "paths: [ 10.0.1.10 ]"),
        path("12:9: luns[0].paths[0]: a path that leads nowhere", "{weight: 1}"),
        path("12:18: luns[0].paths[0].portal: no target has the portal 10.0.1.11:3260; did you mean '10.0.1.10:3260'?", "{portal: \"10.0.1.11:3260\"}"),
        path("12:18: luns[0].paths[0].portal: '10.0.1': not an IP address", "{portal: \"10.0.1\"}"),
        path("12:18: luns[0].paths[0].portal: '10.0.1.10:0': a port is 1 to 65535", "{portal: \"10.0.1.10:0\"}"),
        path("12:39: luns[0].paths[0].weight: '0' is not valid (expected a whole number from 1 to 65535)", "{portal: \"10.0.1.10\", weight: 0}"),
        path("12:37: luns[0].paths[0].role: 'primry' is not valid; did you mean 'primary'? (expected primary or standby)", "{portal: \"10.0.1.10\", role: primry}"),
        path("12:37: luns[0].paths[0].from: '10.0.1.5:0': a source address has no port", "{portal: \"10.0.1.10\", from: \"10.0.1.5:0\"}"),
        path("12:18: luns[0].paths[0].portal: no target has the portal 10.0.1.10:3260 from 10.0.9.9", "{portal: \"10.0.1.10\", from: 10.0.9.9}"),
        path("13:9: luns[0].paths[1]: the path 10.0.1.10:3260 is listed twice; first in line 12", "{portal: \"10.0.1.10\"}\n      - {portal: \"10.0.1.10:3260\"}"),
        path("12:36: luns[0].paths[0].portal: 'portal' beside 'device'", "{device: /dev/sdc, portal: \"10.0.1.10:3260\"}"),
        lun("12:7: luns[0].paths: every path is standby", "paths:\n      - {portal: \"10.0.1.10\", role: standby}"),
        .luns(
            "12:15: luns[1].paths[0]: another LUN has the path /dev/sdc, in line 10",
            "  - name: a\n    paths: [ {device: /dev/sdc} ]\n  - name: b\n    paths: [  {device: /dev/sdc} ]\n"),
        .luns(
            "9:5: luns[0]: the key 'identity' is missing",
            "  - name: a\n    paths: [ {portal: \"10.0.1.10\"} ]\n"),
        // One unit, however it is spelled.
        .luns(
            "12:15: luns[1].identity: another LUN claims this identity, in line 10",
            "  - name: a\n    identity: {target: iqn.2026-11.org.example:array-1, lun: 0}\n  - name: b\n    identity: {lun: 0, target: iqn.2026-11.org.example:ARRAY-1}\n"),
        .luns(
            "12:15: luns[1].paths[0]: another LUN has the unit 0 of iqn.2026-11.org.example:array-1, in line 10",
            "  - name: a\n    identity: {target: iqn.2026-11.org.example:array-1, lun: 0}\n  - name: b\n    paths: [  {portal: \"10.0.2.10\", lun: 0} ]\n"),
        .luns(
            "12:15: luns[1].identity: another LUN claims this identity, in line 10",
            "  - name: a\n    paths: [ {portal: \"10.0.2.10\", lun: 0} ]\n  - name: b\n    identity: {target: iqn.2026-11.org.example:array-1, lun: 0}\n"),
        .luns(
            "12:14: luns[1].paths[0]: another LUN has the unit 0 of iqn.2026-11.org.example:array-1, in line 10",
            "  - name: a\n    paths: [ {portal: \"10.0.1.10\", lun: 0} ]\n  - name: b\n    paths: [ {portal: \"10.0.2.10\", lun: 0} ]\n"),
        .luns(
            "13:15: luns[1].paths[0]: another LUN has the unit 0 of iqn.2026-11.org.example:array-1, in line 10",
            "  - name: a\n    identity: {target: iqn.2026-11.org.example:array-1, lun: 0}\n  - name: b\n    identity: naa.6001405abcdef01234567890abcdef01\n    paths: [  {portal: \"10.0.2.10\", lun: 0} ]\n"),
        BrokenPolicy(
            "1:8: luns[0]: no path leads to it: the file has no targets (expected 'targets', or 'paths' with a device)",
            yaml: "luns: [{name: a, identity: naa.6001405abcdef01234567890abcdef01}]\n"),
        BrokenPolicy(
            "2:8: luns[0]: no path leads to it: the file has no targets (expected 'targets', or 'paths' with a device)",
            yaml: "targets: []\nluns: [{name: a, identity:   naa.6001405abcdef01234567890abcdef01}]\n"),
    ]

    /// What follows the name and identity of a LUN, from line 11, column 5.
    static func lun(_ error: String, _ text: String) -> BrokenPolicy {
        .luns(error, "  - name: a\n    identity: naa.6001405abcdef01234567890abcdef01\n    \(text)\n")
    }

    /// The first path of a LUN, from line 12, column 9.
    static func path(_ error: String, _ text: String) -> BrokenPolicy {
        lun(error, "paths:\n      - \(text)")
    }

    @Test(arguments: luns)
    func aMistakeInALUNIsNamedWithItsPlace(_ broken: BrokenPolicy) {
        Self.check(broken)
    }

    static let plainTargets = "targets: [{name: iqn.2026-11.org.example:a, portals: [10.0.0.1]}]"
    static let lun = "\nluns: [{name: a, identity: naa.6001405abcdef01234567890abcdef01}]\n"

    static func target(_ error: String, _ text: String) -> BrokenPolicy {
        BrokenPolicy(error, yaml: "targets:\n  - name: iqn.2026-11.org.example:a\n" + text + Self.lun)
    }

    static let targets: [BrokenPolicy] = [
        target("2:5: targets[0]: the key 'portals' is missing", ""),
        target("3:14: targets[0].portals: no portal", "    portals: []"),
        target("3:15: targets[0].portals[0]: 'array1.example.org': not an IP address (names are not resolved)", "    portals: [array1.example.org]"),
        target("3:15: targets[0].portals[0]: '0.0.0.0': an unspecified, multicast or broadcast address", "    portals: [0.0.0.0]"),
        target("3:15: targets[0].portals[0]: '239.1.1.1': an unspecified", "    portals: [239.1.1.1]"),
        target("3:15: targets[0].portals[0]: '10.0.0.1:65536': a port is 1 to 65535", "    portals: [\"10.0.0.1:65536\"]"),
        target("3:15: targets[0].portals[0]: '[::1': not an IP address", "    portals: [\"[::1\"]"),
        target("3:15: targets[0].portals[0]: 'fe80::1%nosuch0': no network interface 'nosuch0'", "    portals: [\"fe80::1%nosuch0\"]"),
        target("4:9: targets[0].portals[1]: the portal 10.0.0.1:3260 is listed twice; first in line 3", "    portals: [10.0.0.1,\n        \"10.0.0.1:3260\"]"),
        target("4:9: targets[0].portals[1]: the portal 10.0.0.1:3260 is listed twice", "    portals: [10.0.0.1,\n        \"::ffff:10.0.0.1\"]"),
        target("3:15: targets[0].portals[0]: the key 'address' is missing", "    portals: [{from: 10.0.0.5}]"),
        target("3:43: targets[0].portals[0].from: the address 2001:db8::5 can't reach 10.0.0.1:3260 (expected both IPv4 or both IPv6)", "    portals: [{address: 10.0.0.1,   from: \"2001:db8::5\"}]"),
        target("3:35: targets[0].portals[0].form: unknown key 'form'; did you mean 'from'?", "    portals: [{address: 10.0.0.1, form: 10.0.0.2}]"),
        target("4:18: targets[0].connections: '0' is not valid (expected a whole number from 1 to 16)", "    portals: [10.0.0.1]\n    connections: 0"),
        target("5:24: targets[0].connection-policy: 'LB' can't choose among the connections of a session", "    portals: [10.0.0.1]\n    connections: 2\n    connection-policy: LB"),
        target("4:23: targets[0].digests.header: 'crc32' is not valid; did you mean 'crc32c'?", "    portals: [10.0.0.1]\n    digests: {header: crc32}"),
        target("4:56: targets[0].iscsi.first-burst-length: first-burst-length is larger than max-burst-length (65536)", "    portals: [10.0.0.1]\n    iscsi: {max-burst-length: 64k, first-burst-length: 128k}"),
        target("4:24: targets[0].chap.secret: a secret has no place in the policy file", "    portals: [10.0.0.1]\n    chap: {user: host, secret: opensesame123}"),
        target("4:37: targets[0].chap.secret-file: the secret file ./no-such-file can't be read: No such file", "    portals: [10.0.0.1]\n    chap: {user: host, secret-file: no-such-file}"),
        BrokenPolicy("2:11: targets[0].name: 'array-1' is no iSCSI name: it starts with none of", yaml: "targets:\n  - name: array-1\n    portals: [10.0.0.1]" + lun),
        BrokenPolicy("2:11: targets[0].name: 'iqn.2026-13.org.example' is no iSCSI name: after iqn. come", yaml: "targets:\n  - name: iqn.2026-13.org.example\n    portals: [10.0.0.1]" + lun),
        BrokenPolicy("2:11: targets[0].name: 'eui.0123' is no iSCSI name: eui. is followed by 16", yaml: "targets:\n  - name: eui.0123\n    portals: [10.0.0.1]" + lun),
        BrokenPolicy(
            "4:11: targets[1].name: the target 'iqn.2026-11.org.example:A' is listed twice; first in line 2",
            yaml: "targets:\n  - name: iqn.2026-11.org.example:a\n    portals: [10.0.0.1]\n  - name: iqn.2026-11.org.example:A\n    portals: [10.0.0.2]" + lun),
        BrokenPolicy("1:24: initiator.busy-poll: '1s' is not valid (expected adaptive, never or a duration", yaml: "initiator: {busy-poll: 1s}\n" + plainTargets + lun),
        BrokenPolicy("1:19: initiator.name: 'a/b' is no iSCSI name: it contains '/'", yaml: "initiator: {name: a/b}\n" + plainTargets + lun),
        target("3:30: targets[0].portals[0].address: 'address' beside a list of connections", "    portals: [{address:      10.0.0.1, connections: [{address: 10.0.0.1}]}]"),
        target("3:29: targets[0].portals[0].connections: 0 connections in one session (expected 1 to 16)", "    portals: [{connections: []}]"),
        target("3:29: targets[0].portals[0].connections: every connection is standby", "    portals: [{connections: [{address: 10.0.0.1, role: standby}]}]"),
    ]

    @Test(arguments: targets)
    func aMistakeInATargetIsNamedWithItsPlace(_ broken: BrokenPolicy) {
        Self.check(broken)
    }

    @Test func everyMistakeIsToldInTheOrderOfTheFile() {
        Self.check(
            BrokenPolicy(
                "1:1: initator: unknown key 'initator'; did you mean 'initiator'?",
                "2:20: defaults.policy: 'fastest' is no policy",
                "3:18: targets[0].name: 'x' is no iSCSI name",
                "3:30: targets[0].portals: nothing where a list belongs",
                "5:5: luns[0]: the key 'identity' is missing",
                yaml: """
                    initator: {}
                    defaults: {policy: fastest}
                    targets: [{name: x, portals: }]
                    luns:
                      - name: a
                    """))
    }

    @Test func duplicateKeysAreAllFoundInBlocksAndBraces() {
        Self.check(
            BrokenPolicy(
                "4:5: the key 'identity' is given twice; the first is in line 3",
                "5:30: the key 'retry-count' is given twice; the first is in line 5",
                "6:1: the key 'luns' is given twice; the first is in line 1",
                yaml: """
                    luns:
                      - name: a
                        identity: naa.6001405abcdef01234567890abcdef01
                        identity: naa.6001405abcdef01234567890abcdef02
                        timers: {retry-count: 1, retry-count: 2}
                    luns: []
                    targets: [{name: iqn.2026-11.org.example:a, portals: [10.0.0.1]}]
                    """))
    }

    @Test func aliasesMayRepeatAValueButNotMultiply() {
        let shared = BrokenPolicy.targets + """
              - name: a
                identity: naa.6001405abcdef01234567890abcdef01
                timers: &timers {retry-count: 5}
              - name: b
                identity: naa.6001405abcdef01234567890abcdef02
                timers: *timers
            """
        #expect(Self.errors(of: shared) == [])

        var bomb = "a: &a [x,x,x,x,x,x,x,x,x]\n"
        var previous = "a"
        for name in ["b", "c", "d", "e", "f", "g", "h", "i", "j", "k"] {
            bomb += "\(name): &\(name) [" + Array(repeating: "*\(previous)", count: 9).joined(separator: ",") + "]\n"
            previous = name
        }
        #expect(Self.errors(of: bomb + "luns: *k\n").contains { $0.contains("unknown key 'a'") })

        // The same, where reading it means to walk through all of it.
        var portals = "x: &a {address: 10.0.0.1}\ny: &b [" + Array(repeating: "*a", count: 1000).joined(separator: ",") + "]\n"
        portals += "z: &c {name: iqn.2026-11.org.example:a, portals: *b}\ntargets: [" + Array(repeating: "*c", count: 1000).joined(separator: ",") + "]\n"
        let clock = ContinuousClock.now
        #expect(!Self.errors(of: portals + Self.lun).isEmpty)
        #expect(ContinuousClock.now - clock < .seconds(30))
    }

    @Test(arguments: ["? *k\n: 1\n", "*k : 1\n", "{[*k]: 1}\n", "{? [*k] : 1}\n", "[*k, *k] : 1\n"])
    func aKeyMadeOfAliasesIsRefusedUnread(_ key: String) {
        var bomb = "a: &a [x,x]\n"
        var previous = "a"
        for index in 0..<60 {
            bomb += "k\(index): &k\(index) [*\(previous), *\(previous)]\n"
            previous = "k\(index)"
        }
        bomb = bomb.replacing("k59: &k59", with: "k59: &k")
        let errors = Self.errors(of: bomb + (key.hasPrefix("{") ? "z: " : "") + key)
        #expect(errors.count == 1 && errors[0].contains("a key that is a list, a mapping or an alias"), "\(errors)")
    }

    @Test func aliasesAndBracketedAddressesGoTogether() {
        let yaml = BrokenPolicy.targets + """
              - name: a
                identity: &i naa.6001405abcdef01234567890abcdef01
                policy: &p RR
                paths: [{portal: "[2001:db8::10]:3260"}]
              - name: b
                identity: naa.6001405abcdef01234567890abcdef02
                policy: *p
            """
        #expect(Self.errors(of: yaml) == [])
    }

    @Test func deepNestingIsRefused() {
        for text in [String(repeating: "[", count: 100_000), "luns: " + String(repeating: "{a: ", count: 50_000)] {
            let errors = Self.errors(of: text)
            #expect(errors.count == 1 && errors[0].contains("nesting"), "\(errors.first ?? "")")
        }
    }

    @Test func bytesThatAreNoTextAreRefusedWithTheirPlace() throws {
        let path = NSTemporaryDirectory() + "mpio-\(getpid())-binary.yaml"
        defer { unlink(path) }
        try Data([0x6C, 0x75, 0x0A, 0xC3, 0xA9, 0xFF, 0x00]).write(to: URL(fileURLWithPath: path))
        let error = #expect(throws: InvalidConfiguration.self) { try Configuration(contentsOf: path) }
        #expect(error?.errors.first?.line == 2 && error?.errors.first?.column == 2)
        #expect(error?.errors.first?.message == "not text in UTF-8")
    }

    @Test func randomDamageNeverTraps() {
        var generator = SplitMix(state: 7)
        let good = Array(ConfigurationTests.everything.utf8)
        for _ in 0..<400 {
            var bytes = good
            for _ in 0...Int.random(in: 0..<4, using: &generator) {
                let place = Int.random(in: 0..<bytes.count, using: &generator)
                switch Int.random(in: 0..<4, using: &generator) {
                case 0: bytes[place] = UInt8.random(in: 0...127, using: &generator)
                case 1: bytes.remove(at: place)
                case 2: bytes.insert(Array("{}[]:*&?-\"'#|>%@ \n".utf8).randomElement(using: &generator)!, at: place)
                default: bytes.removeSubrange(place..<min(bytes.count, place + 20))
                }
            }
            _ = Self.errors(of: String(decoding: bytes, as: UTF8.self))
        }
    }
}

struct SplitMix: RandomNumberGenerator {
    var state: UInt64
    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var value = state
        value = (value ^ (value >> 30)) &* 0xBF58_476D_1CE4_E5B9
        value = (value ^ (value >> 27)) &* 0x94D0_49BB_1331_11EB
        return value ^ (value >> 31)
    }
}
