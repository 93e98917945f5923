"""Tools, a resource and a prompt for products, with the scopes they need."""

from decimal import Decimal
from typing import Any

from mcp.server.mcpserver.exceptions import ToolError

from examples.products.models import Product
from mcp_bridge.server import current_principal, mcp


@mcp.tool(scopes=["Guest.Read"])
def list_products(contains: str = "") -> list[dict[str, Any]]:
    """List products whose name contains a text."""
    products = Product.objects.filter(name__icontains=contains)
    return [{"name": p.name, "price": str(p.price)} for p in products[:100]]


@mcp.tool(scopes=["User.Write"])
async def create_product(name: str, price: Decimal) -> str:
    """Add a product."""
    if await Product.objects.filter(name=name).aexists():
        raise ToolError(f"There is a product named {name} already.")
    product = await Product.objects.acreate(name=name, price=price)
    return f"{current_principal().username} added {product.name}."


@mcp.tool(scopes=["Admin.Write"], sensitive=True)
def delete_product(name: str) -> str:
    """Delete a product. The token must name Admin.Write."""
    deleted, _ = Product.objects.filter(name=name).delete()
    if not deleted:
        raise ToolError(f"There is no product named {name}.")
    return f"{current_principal().username} deleted {name}."


@mcp.resource("products://{name}", scopes=["Guest.Read"], mime_type="text/plain")
def product(name: str) -> str:
    """Name and price of one product."""
    row = Product.objects.filter(name=name).first()
    return f"{row.name}: {row.price}" if row else f"No product named {name}."


@mcp.prompt(scopes=["User.Write"])
def describe_product(name: str) -> str:
    """Ask for a text about a product."""
    return f"Write two friendly sentences that sell the product {name!r}."
