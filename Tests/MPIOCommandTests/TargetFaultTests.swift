import Foundation
import ISCSITarget
import MPIO
import TestSupport
import Testing

@testable import MPIOCommand

/// `mpio target fault`, `--peer` and gateways, as a user has them.
@Suite(.serialized) struct TargetFaultTests {
    @Test func faultsAreSetShownAndEnded() throws {
        let folder = Folder()
        let target = try ServedTarget(in: folder)
        #expect(try Mpio("target", "fault", folder: folder.path).output == "no faults\n")
        let added = try Mpio("target", "fault", "add", "busy:portal=1,count=3", "refuse:portal=0", folder: folder.path)
        #expect(added.status == 0 && added.errors.isEmpty, "\(added)")
        #expect(added.output.split(separator: "\n").map { $0.split(separator: " ") } == [
            ["ID", "STATE", "MATCHED", "STRUCK", "FAULT"], ["1", "active", "0", "0", "busy:portal=1,count=3"],
            ["2", "active", "0", "0", "refuse:portal=0"],
        ])
        #expect(target.portals[0].isFree && !target.portals[1].isFree, "it refuses")
        let list = try Mpio("target", "fault", "list", "--json", folder: folder.path)
        let faults = try JSONDecoder().decode([FaultStatus].self, from: Data(list.output.utf8))
        #expect(faults.map(\.id) == [1, 2] && faults.map { "\($0.fault)" } == ["busy:portal=1,count=3", "refuse:portal=0"])

        #expect(try Mpio("target", "fault", "remove", "2", folder: folder.path).output.contains("busy"))
        #expect(!target.portals[0].isFree)
        let unknown = try Mpio("target", "fault", "remove", "1", "9", folder: folder.path)
        #expect(unknown.status == 64 && unknown.errors == "mpio: there is no fault 9\n", "\(unknown)")
        #expect(try Mpio("target", "fault", "list", folder: folder.path).output.contains("busy"), "all or none")
        #expect(try Mpio("target", "fault", "remove", "--all", folder: folder.path).output == "no faults\n")
        #expect(target.interrupt() == .exited(0))
        let none = try Mpio("target", "fault", "list", folder: folder.path)
        #expect(none.status == 1 && none.errors.contains("no mpio target is running"), "\(none)")
    }

    @Test func badFaultsAreNamedAndNoneIsSet() throws {
        let folder = Folder()
        let target = try ServedTarget(in: folder)
        let kind = try Mpio("target", "fault", "add", "busy", "bussy", folder: folder.path)
        #expect(kind.status == 64 && kind.errors.contains("bussy: unknown fault 'bussy'"), "\(kind)")
        let portal = try Mpio("target", "fault", "add", "busy", "reset:portal=7", folder: folder.path)
        #expect(portal.status == 64 && portal.errors == "mpio: there is no portal 7\n", "\(portal)")
        #expect(try Mpio("target", "fault", "list", folder: folder.path).output == "no faults\n")
        #expect(try Mpio("target", "fault", "remove", folder: folder.path).status == 64)
        #expect(try Mpio("target", "fault", "remove", "1", "--all", folder: folder.path).status == 64)
        #expect(target.interrupt() == .exited(0))
    }

    @Test func theSocketIsItsOwnersAloneAndGoesWithTheTarget() throws {
        let folder = Folder()
        let target = try ServedTarget(in: folder)
        func sockets() throws -> [String] {
            try FileManager.default.contentsOfDirectory(atPath: folder.path + "/mpio").filter { $0.hasSuffix(".target") }
        }
        let found = try sockets()
        #expect(found.count == 1)
        var status = stat()
        #expect(lstat(folder.path + "/mpio/" + found[0], &status) == 0 && status.st_mode & 0o777 == 0o600)
        #expect(ControlClient.discover(directories: [folder.path + "/mpio"]).isEmpty, "it is no holder of LUNs")
        #expect(target.interrupt() == .exited(0))
        #expect(try sockets().isEmpty)
    }

    @Test func ofTwoTargetsOneMustBeNamed() throws {
        let folder = Folder()
        let first = try ServedTarget(in: folder)
        let other = "iqn.2026-11.org.example:other"
        let second = try ServedTarget(name: other, log: "second", in: folder)
        let which = try Mpio("target", "fault", "add", "busy", folder: folder.path)
        #expect(which.status == 64 && which.errors.contains("2 targets are running") && which.errors.contains(other), "\(which)")
        #expect(try Mpio("target", "fault", "add", "busy", "--target", other, folder: folder.path).status == 0)
        #expect(try Mpio("target", "fault", "--target", ServedTarget.name, folder: folder.path).output == "no faults\n")
        #expect(try Mpio("target", "fault", "list", "--target", "\(second.process.identifier)", folder: folder.path).output.contains("busy"))
        #expect(try Mpio("target", "fault", "list", "--target", "nobody", folder: folder.path).status == 1)
        #expect(first.interrupt() == .exited(0))
        #expect(second.interrupt() == .exited(0))
    }

    @Test func requestsThatAreNoneAreAnsweredSo() throws {
        let control = TargetControl(names: ["iqn.2026-11.org.example:x"]) { _ in .refused("no") }
        func ask(_ text: String) throws -> TargetReply {
            try JSONDecoder().decode(TargetReply.self, from: Data(control.answer(to: Array(text.utf8))))
        }
        #expect(try ask(#"{"request":"identify"}"#).target == TargetReport(pid: getpid(), names: ["iqn.2026-11.org.example:x"]))
        #expect(try ask(#"{"request":"list"}"#).error == ControlFailure(.invalid, "no"))
        #expect(try ask(#"{"request":"dance"}"#).error != nil)
        #expect(try ask("\u{1}").error != nil)
        #expect(try ask(#"{"request":"add","faults":["bussy"]}"#).error?.message.contains("unknown fault 'bussy'") == true)
    }
}

@Suite(.serialized) struct TargetPeerTests {
    @Test func aPeerIsTheSecondControllerOfOneArray() async throws {
        let folder = Folder()
        let peer = try LoopbackPortal.unused(count: 2)
        let target = try ServedTarget(
            flags: ["--peer", "\(peer[0])", "--peer", "\(peer[1])", "--peer-state", "standby", "--explicit-alua"], in: folder)
        let name = ServedTarget.name + "-peer"
        #expect(target.output.contains("\(name)\n  portal \(peer[0])  group 2  standby\n"), "\(target.output)")
        #expect(target.output.contains("  portal \(target.portals[1])  group 1\n"))
        // The policy file that it prints leads to one disk through both.
        let text = target.output
        let start = try #require(text.range(of: "targets:\n")), end = try #require(text.range(of: "\nOr: "))
        try folder.write(String(text[start.lowerBound..<end.lowerBound]), to: "mpio.yaml")
        let paths = try Mpio("paths", "--json", "--timeout", "20s", folder: folder.path)
        let report = try JSONDecoder().decode(PathsReport.self, from: Data(paths.output.utf8))
        let states = try #require(report.luns.first).paths.map(\.state)
        #expect(states == [.activeOptimized, .activeOptimized, .standby, .standby], "\(paths)")
        #expect(report.luns[0].paths.map(\.tpg) == [1, 1, 2, 2])

        // The first controller dies under load: the second is made active, and nothing is lost.
        let bench = try ChildProcess(
            executable: Mpio.binary,
            arguments: ["bench", "lun-0", "--write", "--verify", "--time", "3s", "--depth", "4", "--json", "--config", folder.path + "/mpio.yaml"],
            environment: ["XDG_RUNTIME_DIR": folder.path], standardOutput: .file(folder.path + "/bench.json"))
        try await Task.sleep(for: .seconds(1))
        #expect(try Mpio("target", "fault", "add", "restart=30s:node=\(ServedTarget.name)", folder: folder.path).status == 0)
        #expect(bench.wait(timeout: .seconds(30)) == .exited(0))
        let result = try JSONSerialization.jsonObject(with: Data(contentsOf: URL(fileURLWithPath: folder.path + "/bench.json"))) as? [String: Any]
        #expect(result?["errors"] as? Int == 0 && (result?["requests"] as? Int ?? 0) > 0, "\(result ?? [:])")
        #expect(target.portals[0].isFree && !peer[0].isFree)
        #expect(target.interrupt() == .exited(0))
    }

    @Test func whatAPeerCanNotBeIsSaid() throws {
        let folder = Folder()
        let lone = try Mpio("target", "--listen", "127.0.0.1:0", "--lun", "0=null,size=1M", "--peer-state", "standby", folder: folder.path)
        #expect(lone.status == 64 && lone.errors.contains("need --peer"), "\(lone)")
        let same = try Mpio(
            "target", "--listen", "127.0.0.1:1", "--peer", "127.0.0.1:1", "--lun", "0=null,size=1M", folder: folder.path)
        #expect(same.status == 64 && same.errors.contains("--peer 127.0.0.1:1 is given twice"), "\(same)")
        let name = try Mpio(
            "target", "--listen", "127.0.0.1:0", "--peer", "127.0.0.2:0", "--peer-name", "iqn.2026-11.io.mpio:target", "--lun",
            "0=null,size=1M", folder: folder.path)
        #expect(name.status == 64 && name.errors.contains("--peer-name has to differ"), "\(name)")
        let nothing = try Mpio("target", folder: folder.path)
        #expect(nothing.status == 64 && nothing.errors.contains("--listen"), "\(nothing)")
    }
}

@Suite(.serialized) struct TargetGatewayTests {
    @Test func aLUNOfThePolicyFileIsServed() async throws {
        let folder = Folder()
        let behind = try ServedTarget(in: folder)
        #expect(try Mpio("discover", "\(behind.portals[0])", "--write-config", "mpio.yaml", folder: folder.path).status == 0)
        let name = "iqn.2026-11.org.example:gateway"
        let gateway = try ServedTarget(
            luns: ["3=mpio:served-0,serial=gate"], flags: ["--config", folder.path + "/mpio.yaml"], name: name, log: "gateway", in: folder)
        #expect(gateway.output.contains("lun 3  mpio served-0  64.0 MiB, 512 B blocks"), "\(gateway.output)")
        let url = "iscsi://\(gateway.portals[0])/\(name)/3"
        let written = try await CommandRunner.require("qemu-io", ["-f", "raw", "-c", "write -P 9 1M 1M", "-c", "flush", url])
        #expect(written.standardOutput.contains("wrote 1048576/1048576"))
        let read = try await CommandRunner.require(
            "qemu-io", ["-f", "raw", "-c", "read -P 9 1M 1M", "-c", "read -P 0 0 1M", "iscsi://\(behind.portals[1])/\(ServedTarget.name)/0"])
        #expect(!read.standardOutput.contains("verification failed"), "\(read.standardOutput)")
        let paths = try Mpio("paths", "served-0", folder: folder.path)
        #expect(paths.output.contains("(mpio target)") && paths.output.contains("state optimal"), "\(paths)")
        #expect(gateway.interrupt() == .exited(0))
        #expect(behind.interrupt() == .exited(0))
    }

    @Test func whatAGatewayCanNotServeIsSaid() throws {
        let folder = Folder()
        try folder.write(goodPolicy, to: "mpio.yaml")
        func target(_ lun: String) throws -> Mpio { try Mpio("target", "--listen", "127.0.0.1:0", "--lun", lun, folder: folder.path) }
        let unknown = try target("0=mpio:nothing")
        #expect(unknown.status == 64 && unknown.errors.contains("has no LUN 'nothing'; it has vm-store"), "\(unknown)")
        let size = try target("0=mpio:vm-store,size=1G")
        #expect(size.status == 64 && size.errors.contains("mpio takes no size"), "\(size)")
        let name = try target("0=mpio")
        #expect(name.status == 64 && name.errors.contains("mpio:NAME"), "\(name)")
        let unreachable = try target("0=mpio:vm-store")
        #expect(unreachable.status == 69 && unreachable.errors.contains("no usable path to vm-store"), "\(unreachable)")
    }
}
