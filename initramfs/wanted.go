package initramfs

// group is a set of modules that a node needs at boot for one reason. After
// the root is switched the image's own modules serve, so that only what it
// takes to get there is listed: every mebibyte costs each node time and memory
// while it boots. Names that a kernel does not have cost nothing.
type group struct {
	reason string
	boot   bool // loaded at every boot; the others when a device or a step asks for them
	names  []string
}

// network is the reason of the group of which at least one module must exist.
const network = "network cards"

// required must be in the kernel or in the archive: without them no image can
// become a root.
func required() []string { return []string{"loop", "overlay", "squashfs"} }

// wanted is everything that is packed when the kernel has it. The order of
// the groups that are loaded at boot is the order of loading.
func wanted() []group {
	return []group{
		{"images as root file systems", true, []string{"loop", "squashfs", "overlay"}},
		{"DHCP before there is an address", true, []string{"af_packet"}},
		{"asking the BMC; finds it through the firmware's tables", true, []string{"ipmi_devintf"}},
		{"checksums that file systems ask the kernel for by name", false, []string{
			"crc32c_generic", "crc32c_intel", "crc32_pclmul", "crct10dif_generic", "crct10dif_pclmul", "sha256_generic"}},
		{"buses of virtual machines", false, []string{
			"virtio_pci", "virtio_mmio", "virtio_balloon", "virtio_rng", "virtio_console", "hv_vmbus", "hv_utils", "qemu_fw_cfg"}},
		{network, false, []string{
			"virtio_net", "vmxnet3", "hv_netvsc", "xen_netfront", "ena", "gve", // virtual machines and clouds
			"e1000", "e1000e", "igb", "igc", "ixgbe", "ixgbevf", "i40e", "iavf", "ice", "idpf", // Intel
			"bnx2", "bnx2x", "bnxt_en", "tg3", // Broadcom
			"mlx4_en", "mlx4_core", "mlx5_core", // NVIDIA
			"cxgb4", "cxgb4vf", "qede", "qlcnic", "netxen_nic", "enic", "be2net", "sfc", "ionic", "atlantic", // others in servers
			"r8169", "8139cp", "8139too", "sky2", "skge", "forcedeth", "alx", "atl1c", "pcnet32", "ne2k_pci", // on-board
			"dwmac_intel", "amd_xgbe", "macb", "nicvf", "hns3", "hclge", "xgene_enet_v2", "mlxbf_gige", // systems on a chip, arm64
			"usbnet", "cdc_ether", "cdc_ncm", "r8152", "ax88179_178a", "asix"}}, // USB
		{"transceivers that network drivers do without but better not", false, []string{"realtek", "marvell", "broadcom", "aquantia", "bcm_phy_lib"}},
		{"bonds, VLANs and bridges that a node may boot through", false, []string{"bonding", "8021q", "bridge"}},
		{"disks", false, []string{
			"nvme", "nvme_tcp", "ahci", "ata_piix", "ata_generic", "sd_mod", "sr_mod", "sg", "virtio_blk", "virtio_scsi",
			"megaraid_sas", "mpt3sas", "mpi3mr", "aacraid", "smartpqi", "hpsa",
			"hv_storvsc", "vmw_pvscsi", "mptspi", "xen_blkfront", "usb_storage", "uas", "sdhci_pci", "mmc_block"}},
		{"keyboards and USB hosts, for an admin at the console", false, []string{
			"xhci_pci", "ehci_pci", "ohci_pci", "uhci_hcd", "usbhid", "hid_generic"}},
		{"file systems of disks and boot media", false, []string{
			"ext4", "xfs", "vfat", "isofs", "erofs", "fuse", "nls_cp437", "nls_iso8859_1", "nls_ascii", "nls_utf8", "efivarfs"}},
		{"images over the network and disks in sets", false, []string{
			"iscsi_tcp", "iscsi_ibft", "nbd", "dm_mod", "dm_verity", "md_mod", "raid1"}},
		{"the BMC", false, []string{"ipmi_si", "ipmi_ssif"}},
		{"the TPM, for identity and sealed keys", false, []string{"tpm_crb", "tpm_tis", "tpm_tis_core"}},
	}
}
