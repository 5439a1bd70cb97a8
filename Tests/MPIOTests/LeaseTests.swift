import Foundation
import ISCSI
import Testing

@testable import MPIO

/// A folder of its own for a test, removed with it.
final class TemporaryFolder {
    let path: String

    init() {
        var template = Array((NSTemporaryDirectory() + "/mpio-test-XXXXXX").utf8CString)
        path = template.withUnsafeMutableBufferPointer { String(cString: mkdtemp($0.baseAddress!)) }
    }

    deinit { try? FileManager.default.removeItem(atPath: path) }
}

@Suite struct LeaseTests {
    let name = "iqn.2026-11.org.example:host-1"

    @Test func slotsAreTheLowestFreeAndReturnWithTheLease() throws {
        let folder = TemporaryFolder()
        let first = try ISIDLease.acquire(initiatorName: name, directory: folder.path)
        var second: ISIDLease? = try ISIDLease.acquire(initiatorName: name, directory: folder.path)
        let third = try ISIDLease.acquire(initiatorName: name, directory: folder.path)
        #expect([first.slot, second?.slot, third.slot] == [0, 1, 2])
        second = nil
        #expect(try ISIDLease.acquire(initiatorName: name, directory: folder.path).slot == 1)
        let other = try ISIDLease.acquire(initiatorName: name + "2", directory: folder.path)
        #expect(other.slot == 0)
        withExtendedLifetime((first, third, other)) {}
    }

    @Test func aLiveProcessKeepsItsSlotAndAKilledOneLeavesIt() throws {
        let folder = TemporaryFolder()
        var first: ISIDLease? = try ISIDLease.acquire(initiatorName: name, directory: folder.path)
        let file = folder.path + "/" + (try #require(FileManager.default.contentsOfDirectory(atPath: folder.path).first))
        let isid = try #require(first?.isid(forSessionIndex: 3))
        first = nil

        // flock(1) holds the lock as another process of ours would.
        let child = Process()
        child.executableURL = URL(fileURLWithPath: "/usr/bin/flock")
        child.arguments = ["--no-fork", "--exclusive", file, "sleep", "60"]
        try child.run()
        defer { if child.isRunning { kill(child.processIdentifier, SIGKILL) } }
        let probe = open(file, O_RDWR | O_CLOEXEC)
        defer { close(probe) }
        let deadline = ContinuousClock.now + .seconds(10)
        while flock(probe, LOCK_EX | LOCK_NB) == 0, ContinuousClock.now < deadline {
            flock(probe, LOCK_UN)
            usleep(2000)
        }

        let second = try ISIDLease.acquire(initiatorName: name, directory: folder.path)
        #expect(second.slot == 1)
        #expect(second.isid(forSessionIndex: 3) != isid)
        kill(child.processIdentifier, SIGKILL)
        child.waitUntilExit()
        let successor = try ISIDLease.acquire(initiatorName: name, directory: folder.path)
        #expect(successor.slot == 0)
        #expect(successor.isid(forSessionIndex: 3) == isid)
        withExtendedLifetime(second) {}
    }

    @Test func aLeaseIsNotInheritedByChildren() throws {
        let folder = TemporaryFolder()
        var lease: ISIDLease? = try ISIDLease.acquire(initiatorName: name, directory: folder.path)
        #expect(lease?.slot == 0)
        let child = Process()
        child.executableURL = URL(fileURLWithPath: "/bin/sleep")
        child.arguments = ["60"]
        try child.run()
        defer { kill(child.processIdentifier, SIGKILL) }
        lease = nil
        #expect(try ISIDLease.acquire(initiatorName: name, directory: folder.path).slot == 0)
    }

    @Test func isidsDependOnNameFolderSlotAndSessionOnly() throws {
        func isid(_ slot: Int, _ index: Int, folder: String = "/run/mpio") -> ISID {
            ISIDLease.isid(initiatorName: name, folder: folder, slot: slot, qualifier: UInt16(index))
        }
        let one = isid(0, 1)
        #expect(one.format == .random)
        #expect(one == isid(0, 1))
        var all: Set<ISID> = []
        // A lease is known in its folder only: those of other folders have to be others.
        let folders = ["/run/mpio", "/run/user/0/mpio", "/run/user/1000/mpio", "/tmp/mpio-1000"]
        for folder in folders {
            for slot in 0..<ISIDLease.slotCount { for index in 0..<8 { all.insert(isid(slot, index, folder: folder)) } }
        }
        #expect(all.count == folders.count * ISIDLease.slotCount * 8)
        // Pinned: another version of mpio has to reinstate the sessions of this one.
        #expect(one.description == "8073c9c10001")
    }

    @Test func holdersInTwoFoldersShareNoISIDAndAFolderHasOneName() throws {
        let (first, second) = (TemporaryFolder(), TemporaryFolder())
        let leases = try [first, second].map { try ISIDLease.acquire(initiatorName: name, directory: $0.path) }
        #expect(leases.map(\.slot) == [0, 0])
        #expect(leases[0].isid(forSessionIndex: 3) != leases[1].isid(forSessionIndex: 3))
        // The same folder by another name: the next process there has to take over from a killed one.
        let link = second.path + "/link"
        #expect(symlink(first.path, link) == 0)
        #expect(mkdir(first.path + "/run", 0o700) == 0)
        var lease: ISIDLease? = try ISIDLease.acquire(initiatorName: name, directory: first.path + "/run")
        let isid = lease?.isid(forSessionIndex: 3)
        lease = nil
        for other in [link + "/run", first.path + "/./run/", first.path + "/run/../run"] {
            #expect(try ISIDLease.acquire(initiatorName: name, directory: other).isid(forSessionIndex: 3) == isid, "\(other)")
        }
    }

    @Test func aSessionKeepsItsISIDWhenOthersAreAdded() throws {
        let folder = TemporaryFolder()
        let lease = try ISIDLease.acquire(initiatorName: name, directory: folder.path)
        let keys = (0..<64).map { "iqn.2026-11.org.example:array 10.0.0.\($0):3260" }
        let before = lease.isids(forSessions: keys)
        let after = lease.isids(forSessions: ["another 10.9.9.9:3260"] + keys)
        #expect(Set(before).count == 64)
        #expect(zip(before, after.dropFirst()).count { $0 == $1 } >= 63)
        #expect(Set(lease.isids(forSessions: (0..<5000).map(String.init))).count == 5000)
    }

    @Test func aRuntimeFolderThatOthersCouldWriteIsRefused() throws {
        let folder = TemporaryFolder()
        #expect(chmod(folder.path, 0o777) == 0)
        #expect(throws: ISIDLeaseError.directory(.writableByOthers(path: folder.path))) {
            try ISIDLease.acquire(initiatorName: name, directory: folder.path)
        }
        #expect(chmod(folder.path, 0o700) == 0)
        let link = folder.path + "/link"
        #expect(symlink(folder.path, link) == 0)
        #expect(throws: ISIDLeaseError.directory(.notADirectory(path: link))) {
            try ISIDLease.acquire(initiatorName: name, directory: link)
        }
    }

    @Test func aLinkInPlaceOfALeaseFileIsNotFollowed() throws {
        let folder = TemporaryFolder()
        _ = try ISIDLease.acquire(initiatorName: name, directory: folder.path)
        let file = try #require(FileManager.default.contentsOfDirectory(atPath: folder.path).first)
        unlink(folder.path + "/" + file)
        #expect(symlink("/etc/hostname", folder.path + "/" + file) == 0)
        #expect(throws: ISIDLeaseError.file(path: folder.path + "/" + file, code: ELOOP)) {
            try ISIDLease.acquire(initiatorName: name, directory: folder.path)
        }
    }

    @Test func runtimeFoldersFollowTheEnvironment() {
        #expect(RuntimeDirectory.defaultPath(environment: ["XDG_RUNTIME_DIR": "/run/user/7"], userID: 7) == "/run/user/7/mpio")
        #expect(RuntimeDirectory.defaultPath(environment: [:], userID: 0) == "/run/mpio")
        #expect(RuntimeDirectory.defaultPath(environment: ["XDG_RUNTIME_DIR": "relative"], userID: 7) == "/tmp/mpio-7")
    }

    @Test func theInitiatorsNameComesFromTheMachine() throws {
        let folder = TemporaryFolder()
        let file = folder.path + "/initiatorname.iscsi"
        try "## no name here\nInitiatorName=iqn.1993-08.org.debian:01:abc\n".write(toFile: file, atomically: false, encoding: .utf8)
        #expect(InitiatorNameSource.defaultName(initiatorNameFile: file) == "iqn.1993-08.org.debian:01:abc")
        let machine = folder.path + "/machine-id"
        try "0123456789abcdef0123456789abcdef\n".write(toFile: machine, atomically: false, encoding: .utf8)
        let made = try #require(InitiatorNameSource.defaultName(initiatorNameFile: "/nonexistent", machineIDFile: machine))
        #expect(made.hasPrefix("iqn.2026-11.io.mpio:") && made.count == 36 && !made.contains("0123456789abcdef"))
        #expect(InitiatorNameSource.defaultName(initiatorNameFile: "/nonexistent", machineIDFile: "/nonexistent", hostName: "localhost") == nil)
    }
}
