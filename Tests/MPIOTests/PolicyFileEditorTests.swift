import Foundation
import Multipath
import Testing

@testable import MPIO

@Suite struct PolicyFileEditorTests {
    static let file = """
        # The storage of host-1.

        targets:
          - name: iqn.2026-11.org.example:a   # the old array
            portals:
              - "10.0.1.10:3260"      # left switch
              - {address: "10.0.2.10:3260", from: 10.0.2.5}   # right switch
              # a third one is coming

        luns:
          # Machines.
          - name: vm-store            # do not touch
            identity: {target: "iqn.2026-11.org.example:a", lun: 0}
            policy: weighted-paths    # since May
            weights: proportional
            paths:                    # by speed
              - {portal: "10.0.1.10:3260", weight: 3}   # 10 Gbit/s
              # the slow one
              - portal: "10.0.2.10:3260"
                weight: 1             # 1 Gbit/s
          - name: scratch
            identity: {target: "iqn.2026-11.org.example:a", lun: 1}
          - {name: flow, identity: {target: "iqn.2026-11.org.example:a", lun: 2}, policy: RR, switch-after: 4}

        """

    private func edited(_ edit: ConfigurationEdit, _ text: String = Self.file) throws -> String {
        try PolicyFileEditor.edited(text, try Configuration(yaml: text), edit, folder: ".")
    }

    /// The lines that differ, old ones with `-`, new ones with `+`.
    private func changes(_ edit: ConfigurationEdit, _ text: String = Self.file) throws -> [String] {
        let (old, new) = (text.components(separatedBy: "\n"), try edited(edit, text).components(separatedBy: "\n"))
        return new.difference(from: old).map { change in
            switch change {
            case .remove(_, let line, _): "-" + line
            case .insert(_, let line, _): "+" + line
            }
        }
    }

    @Test func aPolicyIsReplacedInItsPlace() throws {
        #expect(
            try changes(.policy(lun: "vm-store", policy: "least-queue-depth")) == [
                "-    weights: proportional", "-    policy: weighted-paths    # since May", "+    policy: least-queue-depth    # since May",
            ])
        #expect(try changes(.policy(lun: "vm-store", policy: nil, options: ["weights": "priority"])) == ["-    weights: proportional", "+    weights: priority"])
        #expect(try changes(.policy(lun: "vm-store", policy: "WP")).isEmpty)
    }

    @Test func aMissingKeyComesAfterItsNeighbour() throws {
        #expect(
            try changes(.policy(lun: "scratch", policy: "round-robin", options: ["switch-after": "64k"])) == [
                "+    policy: round-robin", "+    switch-after: 64k",
            ])
        #expect(try changes(.policy(lun: "scratch", policy: "FOO", options: ["fail-back": "30s"])) == ["+    policy: fail-over-only", "+    fail-back: {after: 30s}"])
    }

    @Test func aMappingInBracesStaysInBraces() throws {
        #expect(
            try changes(.policy(lun: "flow", policy: "LB")).last
                == "+  - {name: flow, identity: {target: \"iqn.2026-11.org.example:a\", lun: 2}, policy: least-blocks}")
        #expect(
            try changes(.setPath(lun: "flow", path: "10.0.1.10:3260", weight: 7)).last
                == "+  - {name: flow, identity: {target: \"iqn.2026-11.org.example:a\", lun: 2}, policy: RR, paths: [{portal: \"10.0.1.10:3260\", weight: 7}, {portal: \"10.0.2.10:3260\"}], switch-after: 4}")
    }

    @Test func weightsAndRolesAreSetInTheListOfPaths() throws {
        #expect(
            try changes(.setPath(lun: "vm-store", path: "10.0.1.10:3260", weight: 9)) == [
                "-      - {portal: \"10.0.1.10:3260\", weight: 3}   # 10 Gbit/s", "+      - {portal: \"10.0.1.10:3260\", weight: 9}   # 10 Gbit/s",
            ])
        #expect(
            try changes(.setPath(lun: "vm-store", path: "10.0.2.10:3260", role: .standby, weight: 2)) == [
                "-        weight: 1             # 1 Gbit/s", "+        weight: 2             # 1 Gbit/s", "+        role: standby",
            ])
        #expect(
            try changes(.setPath(lun: "scratch", path: "10.0.2.10:3260", role: .standby)) == [
                "+    paths:", "+      - {portal: \"10.0.1.10:3260\"}", "+      - {portal: \"10.0.2.10:3260\", role: standby}",
            ])
    }

    @Test func pathsAreAddedAndRemoved() throws {
        #expect(
            try changes(.removePath(lun: "vm-store", path: "10.0.2.10:3260")) == [
                "-        weight: 1             # 1 Gbit/s", "-      - portal: \"10.0.2.10:3260\"",
            ])
        #expect(try changes(.addPath(lun: "scratch", .init(address: "10.0.3.10"))) == ["+      - \"10.0.3.10:3260\""])
        #expect(
            try changes(.addPath(lun: "vm-store", .init(address: "10.0.3.10:3261", source: "10.0.3.5", weight: 2))) == [
                "+      - {address: \"10.0.3.10:3261\", from: \"10.0.3.5\"}", "+      - {portal: \"10.0.3.10:3261\", weight: 2}",
            ])
        #expect(
            try changes(.addPath(lun: "scratch", .init(address: "/dev/sdc", role: "standby"))) == [
                "+    paths:", "+      - {portal: \"10.0.1.10:3260\"}", "+      - {portal: \"10.0.2.10:3260\"}", "+      - {device: \"/dev/sdc\", role: standby}",
            ])
    }

    /// The path that is there would have to be called otherwise.
    @Test func aSecondSessionToAnAddressIsLeftToAnEditor() throws {
        #expect(throws: PolicyFileRefusal.self) {
            try edited(.addPath(lun: "vm-store", .init(address: "10.0.2.10", source: "10.0.2.6")))
        }
    }

    @Test(arguments: [
        ConfigurationEdit.policy(lun: "vm-store", policy: "none"), .policy(lun: "gone", policy: "RR"),
        .policy(lun: "vm-store", policy: "LQD", options: ["weights": "priority"]), .setPath(lun: "vm-store", path: "x", weight: 2),
        .addPath(lun: "scratch", .init(address: "10.0.1.10")), .addPath(lun: "scratch", .init(address: "host")),
        .addPath(lun: "scratch", .init(address: "10.0.9.9", target: "iqn.2026-11.org.example:b")),
        .addPath(lun: "scratch", .init(address: "10.0.9.9", weight: 0)),
    ])
    func aChangeThatIsWrongIsRefused(_ edit: ConfigurationEdit) {
        #expect(throws: ControlFailure.self) { try edited(edit) }
    }

    @Test func theLastPathIsNotRemoved() throws {
        let one = try edited(.removePath(lun: "vm-store", path: "10.0.2.10:3260"))
        #expect(throws: ControlFailure.self) { try edited(.removePath(lun: "vm-store", path: "10.0.1.10:3260"), one) }
    }

    /// What an alias names is another LUN's as well, and several lines are not one.
    @Test(arguments: [
        ("luns:\n  - name: a\n    identity: naa.6001405abcdef01234567890abcdef01\n    policy: &p round-robin\n  - name: b\n    identity: naa.6001405abcdef01234567890abcdef02\n    policy: *p\n", "b"),
        ("luns:\n  - name: a\n    identity: naa.6001405abcdef01234567890abcdef01\n    policy: &p round-robin\n", "a"),
        ("luns:\n  - name: b\n    identity: naa.6001405abcdef01234567890abcdef02\n    policy: >-\n      round-robin\n", "b"),
        ("luns:\n  - name: b\n    identity: naa.6001405abcdef01234567890abcdef02\n    policy: !!str round-robin\n", "b"),
    ])
    func whatCanNotBeDoneSafelyIsRefused(_ luns: String, _ name: String) throws {
        let text = "targets: [{name: iqn.2026-11.org.example:a, portals: [10.0.1.10]}]\n" + luns
        #expect(throws: PolicyFileRefusal.self) { try edited(.policy(lun: name, policy: "least-blocks"), text) }
    }

    @Test func linesOfWindowsStayLinesOfWindows() throws {
        let text = Self.file.replacing("\n", with: "\r\n")
        let new = try edited(.policy(lun: "scratch", policy: "LQD"), text)
        #expect(new.contains("lun: 1}\r\n    policy: least-queue-depth\r\n") && !new.replacing("\r\n", with: "").contains("\n"))
    }

    @Test func aFileWithoutALineBreakAtItsEndIsEdited() throws {
        let text = String(Self.file.dropLast())
        #expect(try edited(.setPath(lun: "flow", path: "10.0.2.10:3260", weight: 2), text).hasSuffix("switch-after: 4}"))
    }

    @Test func theFileIsReplacedInOneStepWithItsMode() throws {
        let folder = TemporaryFolder()
        let file = folder.path + "/mpio.yaml"
        try Self.file.write(toFile: file, atomically: false, encoding: .utf8)
        #expect(chmod(file, 0o640) == 0)
        #expect(symlink("mpio.yaml", folder.path + "/link.yaml") == 0)
        let editor = try PolicyFileEditor(folder.path + "/link.yaml", applying: .policy(lun: "scratch", policy: "LQD"))
        try editor.save()
        var status = stat()
        #expect(lstat(file, &status) == 0 && status.st_mode & 0o7777 == 0o640)
        #expect(lstat(folder.path + "/link.yaml", &status) == 0 && status.st_mode & S_IFMT == S_IFLNK)
        #expect(try Configuration(contentsOf: file).lun(named: "scratch")?.settings.policy.kind == .leastQueueDepth)
        #expect(try FileManager.default.contentsOfDirectory(atPath: folder.path).sorted() == ["link.yaml", "mpio.yaml"])
    }

    /// It was killed as it wrote, and had our process id.
    @Test func whatADeadProcessLeftIsNoObstacle() throws {
        let folder = TemporaryFolder()
        let file = folder.path + "/mpio.yaml"
        try Self.file.write(toFile: file, atomically: false, encoding: .utf8)
        try "half".write(toFile: "\(file).\(getpid()).new", atomically: false, encoding: .utf8)
        try PolicyFileEditor(file, applying: .policy(lun: "scratch", policy: "LQD")).save()
        #expect(try Configuration(contentsOf: file).lun(named: "scratch")?.settings.policy.kind == .leastQueueDepth)
    }

    @Test func aFileThatWasChangedMeanwhileIsLeftAlone() throws {
        let folder = TemporaryFolder()
        let file = folder.path + "/mpio.yaml"
        try Self.file.write(toFile: file, atomically: false, encoding: .utf8)
        let editor = try PolicyFileEditor(file, applying: .policy(lun: "scratch", policy: "LQD"))
        try (Self.file + "# mine\n").write(toFile: file, atomically: false, encoding: .utf8)
        #expect(throws: PolicyFileRefusal.self) { try editor.save() }
        #expect(try String(contentsOfFile: file, encoding: .utf8) == Self.file + "# mine\n")
        #expect(try FileManager.default.contentsOfDirectory(atPath: folder.path) == ["mpio.yaml"])
    }
}
