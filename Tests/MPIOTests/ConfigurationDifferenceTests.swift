import Foundation
import Multipath
import Testing

@testable import MPIO

@Suite struct ConfigurationDifferenceTests {
    private func words(_ old: String, _ new: String) throws -> [String] {
        try Configuration(yaml: old).differences(to: try Configuration(yaml: new)).map(\.description)
    }

    static let base = PolicyFileEditorTests.file

    @Test func aFileDoesNotDifferFromItself() throws {
        #expect(try words(Self.base, Self.base).isEmpty)
        #expect(try words(Self.base, Self.base.replacing("round-robin", with: "RR") + "# comment\n").isEmpty)
    }

    @Test(arguments: [
        ("policy: weighted-paths", "policy: weighted-paths\n    timers: {silence-timeout: 3s}", "vm-store: timers.silence-timeout 2s → 3s"),
        ("weights: proportional", "weights: priority", "vm-store: weights proportional → priority"),
        ("weight: 3", "weight: 4", "vm-store 10.0.1.10:3260: weight 3 → 4"),
        ("weight: 3", "weight: 3, role: standby", "vm-store 10.0.1.10:3260: role primary → standby"),
        ("lun: 1}", "lun: 9}", "scratch: identity iqn.2026-11.org.example:a LUN 1 → iqn.2026-11.org.example:a LUN 9"),
        ("switch-after: 4", "switch-after: 64k", "flow: switch-after 4 → 64k"),
        ("switch-after: 4", "switch-after: 4, allow-lun-reset: true", "flow: allow-lun-reset false → true"),
        ("switch-after: 4", "switch-after: 4, marginal-paths: {window: 2m}", "flow: marginal-paths.window 60s → 120s"),
        ("switch-after: 4", "switch-after: 4, asymmetric-access: {preferred-bit: ignore}", "flow: asymmetric-access.preferred-bit follow → ignore"),
        ("    portals:", "    digests: {header: crc32c}\n    portals:", "iqn.2026-11.org.example:a: digests.header none → crc32c (with the session's next login)"),
        ("    portals:", "    iscsi: {queue-depth: 64}\n    portals:", "iqn.2026-11.org.example:a: iscsi.queue-depth 1024 → 64 (with the session's next login)"),
        ("name: scratch", "name: other", "scratch: lun scratch is removed|other: lun other is added"),
    ])
    func whatChangesIsSaid(_ old: String, _ new: String, _ expected: String) throws {
        #expect(try words(Self.base, Self.base.replacing(old, with: new, maxReplacements: 1)).joined(separator: "|") == expected)
    }

    @Test func aNewPortalIsAPathOfEveryLUNThatListsNone() throws {
        let new = Self.base.replacing("      # a third one is coming", with: "      - 10.0.3.10")
        #expect(
            try words(Self.base, new) == [
                "iqn.2026-11.org.example:a: portal 10.0.3.10:3260 is added", "scratch 10.0.3.10:3260: path 10.0.3.10:3260 is added",
                "flow 10.0.3.10:3260: path 10.0.3.10:3260 is added",
            ])
    }

    @Test func theOrderOfPathsIsAChange() throws {
        let old = Self.base.replacing("    policy: weighted-paths    # since May\n    weights: proportional\n", with: "    policy: fail-over-only\n")
        let first = "      - {portal: \"10.0.1.10:3260\", weight: 3}   # 10 Gbit/s\n"
        let second = "      - portal: \"10.0.2.10:3260\"\n        weight: 1             # 1 Gbit/s\n"
        let new = old.replacing(first, with: "").replacing(second, with: second + first)
        #expect(try words(old, new) == ["vm-store: order 10.0.1.10:3260, 10.0.2.10:3260 → 10.0.2.10:3260, 10.0.1.10:3260"])
    }

    @Test func aSecretIsComparedAndNotShown() throws {
        let folder = TemporaryFolder()
        for (name, text) in [("a", "0123456789abcdef"), ("b", "fedcba9876543210")] {
            let file = folder.path + "/" + name
            try text.write(toFile: file, atomically: false, encoding: .utf8)
            chmod(file, 0o600)
        }
        let chap = { (name: String) in
            try Configuration(yaml: Self.base.replacing("    portals:", with: "    chap: {user: u, secret-file: \(name)}\n    portals:"), folder: folder.path)
        }
        #expect(try chap("a").differences(to: try chap("a")).isEmpty)
        let changes = try chap("a").differences(to: try chap("b"))
        #expect(changes.map(\.description) == ["iqn.2026-11.org.example:a: chap.secret-file changes (with the session's next login)"])
        #expect(!"\(changes)".contains("0123456789"))
    }

    @Test func aLUNThatMustNotGoTakesItsPortalsAlong() throws {
        let old = try Configuration(yaml: Self.base)
        var new = try Configuration(yaml: "luns: [{name: other, paths: [{device: /dev/sdz}]}]\n")
        new.keep(try #require(old.lun(named: "vm-store")), of: old)
        let kept = try #require(new.lun(named: "vm-store"))
        #expect(kept.paths.map { new.place(of: $0.transport) } == old.effectivePaths(of: old.luns[0]).map { old.place(of: $0.transport) })
        #expect(new.targets.map(\.portals.count) == [2])
    }
}
