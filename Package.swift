// swift-tools-version: 6.2
import PackageDescription

let strict: [SwiftSetting] = [
    .enableUpcomingFeature("ExistentialAny"),
    .enableUpcomingFeature("InternalImportsByDefault"),
]

// O_DIRECT, accept4 and preadv2 are declared only under _GNU_SOURCE.
let gnuSource: [CSetting] = [.define("_GNU_SOURCE")]

/// With what a package of its own has that depends on the product MPIO.
func example(_ name: String) -> Target {
    .executableTarget(name: name, dependencies: ["MPIO", "Multipath", "SCSI"], path: "Examples/\(name)/Sources/\(name)")
}

let package = Package(
    name: "mpio",
    products: [
        // Multipath and SCSI are what a device-specific module is written with.
        .library(name: "MPIO", targets: ["MPIO", "Multipath", "SCSI"]),
        .library(name: "ISCSITarget", targets: ["ISCSITarget"]),
        .library(name: "NBD", targets: ["NBD"]),
        .executable(name: "mpio", targets: ["MPIOCommand"]),
        .executable(name: "simulate", targets: ["SimulateCommand"]),
    ],
    dependencies: [
        // No further: the command asks parsers for their `_commandName`, and manual pages are made from
        // `--experimental-dump-help`; both may change with a minor version.
        .package(url: "https://github.com/apple/swift-argument-parser", .upToNextMinor(from: "1.8.2")),
        .package(url: "https://github.com/jpsim/Yams", from: "6.2.2"),
        .package(url: "https://github.com/apple/swift-log", from: "1.16.2"),
    ],
    targets: [
        // Arrows only point down this list.
        .target(
            name: "CAio", path: "CAio", cSettings: gnuSource,
            linkerSettings: [.linkedLibrary("aio"), .linkedLibrary("crypto")]),
        .target(name: "Timebase", swiftSettings: strict),
        .target(
            name: "AsyncIO", dependencies: ["CAio", "Timebase"], cSettings: gnuSource,
            swiftSettings: strict),
        .target(name: "SCSI", swiftSettings: strict),
        .target(name: "ISCSI", dependencies: ["SCSI", "Timebase"], swiftSettings: strict),
        .target(name: "NBD", swiftSettings: strict),
        .target(name: "Cryptography", dependencies: ["CAio", "ISCSI"], swiftSettings: strict),
        // TLS by OpenSSL, which only who serves NBD links.
        .systemLibrary(name: "COpenSSL", path: "COpenSSL"),
        .target(name: "TLS", dependencies: ["COpenSSL"], cSettings: gnuSource, swiftSettings: strict),
        .target(name: "Multipath", dependencies: ["SCSI", "Timebase"], swiftSettings: strict),
        .target(
            name: "MPIO",
            dependencies: [
                "AsyncIO", "Cryptography", "ISCSI", "Multipath", "SCSI", "Timebase",
                .product(name: "Yams", package: "Yams"),
                .product(name: "Logging", package: "swift-log"),
            ],
            cSettings: gnuSource, swiftSettings: strict),
        .target(
            name: "ISCSITarget", dependencies: ["AsyncIO", "Cryptography", "ISCSI", "SCSI", "Timebase"],
            cSettings: gnuSource, swiftSettings: strict),
        // A unit of the embedded target on a multipath disk.
        .target(
            name: "Gateway", dependencies: ["MPIO", "ISCSITarget", "AsyncIO", "SCSI"], swiftSettings: strict),
        // Multipath disks for clients of the Network Block Device protocol.
        .target(
            name: "NBDServer", dependencies: ["MPIO", "NBD", "AsyncIO", "SCSI", "TLS", "Timebase"], cSettings: gnuSource,
            swiftSettings: strict),
        .executableTarget(
            name: "MPIOCommand",
            dependencies: [
                "MPIO", "ISCSITarget", "Gateway", "NBDServer", "TLS",
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
                .product(name: "Logging", package: "swift-log"),
            ],
            cSettings: gnuSource, swiftSettings: strict),

        // Writes the manual pages for `make install`, from the command's own help and docs/.
        .executableTarget(name: "ManualPages", swiftSettings: strict),

        // The shipped code over a virtual network and clock. Not a library product.
        .target(
            name: "Simulation",
            dependencies: ["MPIO", "ISCSITarget", "AsyncIO", "ISCSI", "Multipath", "SCSI", "Timebase", "CAio"],
            cSettings: gnuSource, swiftSettings: strict),
        .executableTarget(
            name: "SimulateCommand",
            dependencies: [
                "Simulation", "Timebase",
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
            ],
            swiftSettings: strict),

        // The packages of Examples/ as targets of this one: DocumentationTests run them without building mpio for each.
        example("QuickStart"), example("VendorDSM"), example("CopyTool"), example("KeyValueLog"),

        // Real processes (tgtd, qemu-io) and addresses for the tests that need them.
        .target(
            name: "TestSupport", dependencies: ["Timebase"], path: "Tests/TestSupport", cSettings: gnuSource,
            swiftSettings: strict),
        // Counts the heap allocations of the process, and of each thread.
        .target(name: "AllocationCount", path: "Tests/AllocationCount"),
        .testTarget(name: "AsyncIOTests", dependencies: ["AsyncIO"], swiftSettings: strict),
        .testTarget(name: "SCSITests", dependencies: ["SCSI"], swiftSettings: strict),
        .testTarget(name: "ISCSITests", dependencies: ["ISCSI"], swiftSettings: strict),
        .testTarget(name: "MultipathTests", dependencies: ["Multipath", "AllocationCount"], swiftSettings: strict),
        .testTarget(name: "NBDTests", dependencies: ["NBD"], swiftSettings: strict),
        .testTarget(name: "TLSTests", dependencies: ["TLS", "COpenSSL", "TestSupport"], swiftSettings: strict),
        .testTarget(name: "MPIOTests", dependencies: ["MPIO", "ISCSITarget", "TestSupport", "AllocationCount"], swiftSettings: strict),
        .testTarget(name: "ISCSITargetTests", dependencies: ["ISCSITarget", "TestSupport"], swiftSettings: strict),
        .testTarget(
            name: "MPIOCommandTests", dependencies: ["MPIOCommand", "ManualPages", "MPIO", "TestSupport"],
            swiftSettings: strict),
        .testTarget(name: "SimulationTests", dependencies: ["Simulation", "TestSupport"], swiftSettings: strict),
        .testTarget(
            name: "DocumentationTests",
            dependencies: [
                "MPIO", "ISCSITarget", "Multipath", "AsyncIO", "SCSI", "Timebase", "TestSupport", "MPIOCommand",
                "QuickStart", "VendorDSM", "CopyTool", "KeyValueLog",
            ],
            swiftSettings: strict),
        .testTarget(
            name: "InteropTests", dependencies: ["MPIO", "ISCSITarget", "Gateway", "NBDServer", "NBD", "TLS", "TestSupport"],
            cSettings: gnuSource, swiftSettings: strict),
    ],
    swiftLanguageModes: [.v6]
)
