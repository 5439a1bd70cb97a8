import MPIO
import Multipath
import SCSI

/// Acme's two-controller arrays, which have ALUA. While a volume moves to the other controller they answer 02/04/81,
/// which no standard defines.
final class AcmeDSM: ALUADSM {
    override class func claims(_ device: DeviceDescription, transport: TransportKind) -> Bool {
        device.vendor == "ACME" && transport == .iSCSI
    }

    override var name: String { "acme" }

    override var errorTable: ErrorTable {
        .standard.preceded(by: [
            ErrorRow(
                .sense(.notReady, code: 0x04, qualifier: 0x81),
                ErrorDisposition(.retryOtherPath, delay: .retryInterval, effects: .refreshAccessStates),
                name: "volume is moving",
                why: "It takes a second, the other controller will have it, and no path is at fault: not counted.")
        ])
    }
}

let manager = try await PathManager(configuration: Configuration(contentsOf: "mpio.yaml"))
manager.register(dsm: AcmeDSM.self)
let disk = try await manager.open("vm-store")
let buffer = IOBuffer(byteCount: disk.blockSize)
for block in 0..<8 { try await disk.read(into: buffer, at: UInt64(block * disk.blockSize)) }
let status = try await disk.status
print("claimed by", status.dsm)
for path in status.paths { print(path.id, path.state.rawValue, "requests", path.requests, "errors", path.errors) }
try await manager.shutdown()
