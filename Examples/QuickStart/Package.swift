// swift-tools-version: 6.2
import PackageDescription

let package = Package(
    name: "QuickStart",
    // Outside this repository: .package(url: "…/mpio", branch: "main")
    dependencies: [.package(name: "mpio", path: "../..")],
    targets: [.executableTarget(name: "QuickStart", dependencies: [.product(name: "MPIO", package: "mpio")])]
)
