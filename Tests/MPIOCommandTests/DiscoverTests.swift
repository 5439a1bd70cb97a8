import Foundation
import MPIO
import TestSupport
import Testing

@testable import MPIOCommand

/// What is read of `mpio discover --json`.
private struct Found: Decodable {
    struct Portal: Decodable {
        var portal: String
        var error: String?
    }
    struct Target: Decodable {
        var name: String
        var portals: [Portal]
    }
    struct LUN: Decodable {
        struct Path: Decodable { var portal: String, lun: Int }
        var name: String
        var identity: String
        var capacity_bytes: UInt64
        var paths: [Path]
    }
    var portals: [Portal]
    var targets: [Target]
    var luns: [LUN]
}

@Suite struct DiscoverTests {
    @Test func aPolicyFileIsWrittenThatPathsWorksWith() throws {
        let folder = Folder()
        let target = try ServedTarget(luns: ["0=memory,size=64M", "7=null,size=1G,block-size=4096"], in: folder)
        let first = "\(target.portals[0])"
        let run = try Mpio("discover", first, "--write-config", "mpio.yaml", folder: folder.path)
        #expect(run.status == 0 && run.errors == "mpio.yaml written; look at it with: mpio paths\n", "\(run)")
        for portal in target.portals { #expect(run.output.contains("portal \(portal)")) }
        #expect(run.output.contains("lun 7  served-7"))

        let paths = try Mpio("paths", "--config", "mpio.yaml", "--json", "--timeout", "20s", folder: folder.path)
        let report = try JSONDecoder().decode(PathsReport.self, from: Data(paths.output.utf8))
        #expect(report.luns.map(\.name) == ["served-0", "served-7"], "\(paths)")
        #expect(report.luns.allSatisfy { $0.state == .optimal && $0.paths.count == 2 && $0.holder == nil })
        #expect(report.luns.map(\.capacityBytes) == [64 << 20, 1 << 30])

        // What is there is not lost by a second run.
        let kept = try String(contentsOfFile: folder.path + "/mpio.yaml", encoding: .utf8)
        let again = try Mpio("discover", first, "--write-config", "mpio.yaml", folder: folder.path)
        #expect(again.status == 64 && again.errors == "mpio: mpio.yaml exists; --force replaces it\n" && again.output.isEmpty)
        #expect(try String(contentsOfFile: folder.path + "/mpio.yaml", encoding: .utf8) == kept)
        try folder.write("gone", to: "mpio.yaml")
        #expect(try Mpio("discover", first, "--write-config", "mpio.yaml", "--force", folder: folder.path).status == 0)
        #expect(try String(contentsOfFile: folder.path + "/mpio.yaml", encoding: .utf8) == kept)
    }

    @Test func portalsOfOneTargetAreGroupedAndSilentOnesNamed() throws {
        let folder = Folder()
        let target = try ServedTarget(portalCount: 3, in: folder)
        let dead = try LoopbackPortal.unused()[0]
        let run = try Mpio("discover", "\(dead)", "\(target.portals[2])", "\(target.portals[0])", "--json", folder: folder.path)
        let found = try JSONDecoder().decode(Found.self, from: Data(run.output.utf8))
        #expect(run.status == 0)
        #expect(found.portals.map { $0.error != nil } == [true, false, false])
        #expect(found.portals[0].error?.contains("connection refused") == true)
        #expect(found.targets.map(\.name) == [ServedTarget.name])
        #expect(found.targets[0].portals.map(\.portal) == target.portals.map(\.description))
        #expect(found.luns.count == 1 && found.luns[0].paths.map(\.portal) == target.portals.map(\.description))
        #expect(found.luns[0].identity.hasPrefix("naa.6") && found.luns[0].capacity_bytes == 64 << 20)
    }

    @Test func nobodyThereIsStatus69AndWritesNothing() throws {
        let folder = Folder()
        let dead = try LoopbackPortal.unused()[0]
        let run = try Mpio("discover", "\(dead)", "--write-config", "mpio.yaml", folder: folder.path)
        #expect(run.status == 69 && run.errors == "mpio: the portal did not answer\n" && run.output.contains("connection refused"), "\(run)")
        #expect(!FileManager.default.fileExists(atPath: folder.path + "/mpio.yaml"))
        let name = try Mpio("discover", "array.example", folder: folder.path)
        #expect(name.status == 64 && name.errors.contains("names are not resolved"))
    }

    /// A portal that accepts connections and says nothing.
    @Test func aSilentPortalIsWaitedForAsLongAsAskedFor() throws {
        let folder = Folder()
        let portal = try LoopbackPortal.unused()[0]
        let listener = try MutePortal(portal)
        defer { withExtendedLifetime(listener) {} }
        let start = ContinuousClock.now
        let run = try Mpio("discover", "\(portal)", "--timeout", "300ms", folder: folder.path)
        #expect(run.status == 69 && run.output.contains("login timed out"), "\(run)")
        #expect(ContinuousClock.now - start < .seconds(4))
    }

    @Test func chapIsUsedAndWrittenDown() throws {
        let folder = Folder()
        for (file, text) in [("secret", "first-secret-of-12"), ("wrong", "some-other-secret-12"), ("mutual", "the-targets-own-secret")] {
            try folder.write(text + "\n", to: file)
            chmod(folder.path + "/" + file, 0o600)
        }
        let target = try ServedTarget(
            flags: ["--chap-user", "host-1", "--chap-secret-file", folder.path + "/secret", "--mutual-user", "array", "--mutual-secret-file", folder.path + "/mutual"],
            in: folder)
        let portal = "\(target.portals[0])"
        let none = try Mpio("discover", portal, folder: folder.path)
        #expect(none.status == 69 && none.output.contains("authentication failed"), "\(none)")
        #expect(none.errors.contains("the target wants CHAP: name --user and --secret-file"), "\(none)")
        let wrong = try Mpio("discover", portal, "--user", "host-1", "--secret-file", "wrong", folder: folder.path)
        #expect(wrong.status == 69 && wrong.output.contains("authentication failed"), "\(wrong)")
        #expect(wrong.errors.contains("does the target know the user 'host-1', by this secret?"), "\(wrong)")
        let right = try Mpio(
            "discover", portal, "--user", "host-1", "--secret-file", "secret", "--mutual-user", "array", "--mutual-secret-file", "mutual",
            "--write-config", "mpio.yaml", folder: folder.path)
        #expect(right.status == 0, "\(right)")
        let paths = try Mpio("paths", "--check", "--json", "--timeout", "20s", folder: folder.path)
        #expect(paths.status == 0 && !paths.output.contains("first-secret"), "\(paths)")
        #expect(try !String(contentsOfFile: folder.path + "/mpio.yaml", encoding: .utf8).contains("first-secret"))
        #expect(!target.output.contains("first-secret") && target.output.contains("user: \"host-1\""))

        chmod(folder.path + "/secret", 0o644)
        let open = try Mpio("discover", portal, "--user", "host-1", "--secret-file", "secret", folder: folder.path)
        #expect(open.status == 64 && open.errors.contains("chmod 600"), "\(open)")
        #expect(try Mpio("discover", portal, "--user", "host-1", folder: folder.path).status == 64)
    }

    @Test func whatGoesWrongSaysWhatToDo() throws {
        let folder = Folder()
        let target = try ServedTarget(portalCount: 1, in: folder)
        let portal = "\(target.portals[0])"
        let mistyped = try Mpio("discover", portal, "--write-confg", "mpio.yaml", folder: folder.path)
        #expect(mistyped.status == 64 && mistyped.errors.contains("Did you mean '--write-config'?"), "\(mistyped)")
        let nowhere = try Mpio("discover", portal, "--write-config", "missing/mpio.yaml", folder: folder.path)
        #expect(nowhere.status == 64 && nowhere.errors.contains("the folder missing") && nowhere.output.isEmpty, "\(nowhere)")
        let single = try Mpio("discover", portal, "--write-config", "mpio.yaml", folder: folder.path)
        #expect(single.status == 0 && single.errors.contains("There is one path to each LUN"), "\(single)")
        let unknown = try Mpio("paths", "vm-store", folder: folder.path)
        #expect(unknown.status == 64 && unknown.errors.contains("has no LUN 'vm-store'; it has served-0"), "\(unknown)")
        let noFile = try Mpio("paths", "--config", "other.yaml", folder: folder.path)
        #expect(noFile.status == 65 && noFile.errors.contains("there is no policy file other.yaml. Write one by: mpio discover PORTAL --write-config other.yaml"), "\(noFile)")
        let action = try Mpio("path", "drian", "served-0", portal, folder: folder.path)
        #expect(action.status == 64 && action.errors.contains("did you mean 'drain'?"), "\(action)")
        let policy = try Mpio("policy", "served-0", "round-robbin", folder: folder.path)
        #expect(policy.status == 64 && policy.errors.contains("did you mean 'round-robin'?"), "\(policy)")
    }

    @Test func aLUNThatNoTargetHasIsSaidToBeThat() throws {
        let folder = Folder()
        let target = try ServedTarget(luns: ["0=memory,size=16M,identity=naa.6001405abcdef01234567890abcdef01"], in: folder)
        #expect(try Mpio("discover", "\(target.portals[0])", "--write-config", "mpio.yaml", folder: folder.path).status == 0)
        let file = try String(contentsOfFile: folder.path + "/mpio.yaml", encoding: .utf8)
        try folder.write(file.replacing("7890abcdef01", with: "7890abcdef02"), to: "mpio.yaml")
        let paths = try Mpio("paths", folder: folder.path)
        #expect(paths.output.contains("no paths: no target that answers has this LUN"), "\(paths)")
        let read = try Mpio("read", "served-0", "--length", "4k", folder: folder.path)
        #expect(read.status == 69 && read.errors.contains("no target that answers has it"), "\(read)")
    }
}
