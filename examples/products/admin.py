from django.contrib import admin

from examples.products.models import Product

admin.site.register(Product)
